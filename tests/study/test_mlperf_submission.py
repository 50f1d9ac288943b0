"""Lay out runs of the real LoadGen as a submission to MLPerf."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from shutil import copytree

import pytest
from support.accuracy_dataset import write_accuracy_files
from support.accuracy_trials import accuracy_words, measure_accuracy

from tune.analysis.guaranteed_rates import RemeasuredConfiguration, guarantee_rates
from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure_attempt
from tune.cli.export_command import export
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.records.accuracy import read_accuracy
from tune.records.confirmation import write_confirmation
from tune.records.folders import StudyFolder, TrialFolder
from tune.spec.mlperf_rules import ROUNDS
from tune.study.accuracy_gate import with_accuracy
from tune.study.identity import study_record
from tune.study.mlperf_submission import SubmitterFacts, read_submitter_facts, write_submission

GOLDEN = Path(__file__).with_name("golden_submission.txt")
"""The files of a submission to v5.1, one a line, and of one to a later round."""

ACME = SubmitterFacts(submitter="ACME")


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> TrialFolder:
    """Return a trial of which the real LoadGen measured performance and accuracy, over 24 samples."""
    root = tmp_path_factory.mktemp("trial")
    files = write_accuracy_files(root)
    changes = accuracy_words(files)
    spec = compose_overrides(changes).settings.trial_spec
    folder = TrialFolder(root / spec.trial_id)
    folder.write_spec(spec)
    attempt = folder.new_attempt()
    measure_accuracy(attempt, spec, files)
    provenance = {"overrides": list(changes), "versions": {"tune": "0.2.0"}}
    facts = TrialFacts(3, "confirm", provenance=provenance)
    outcome = judge(spec, measure_attempt(attempt, spec), facts, accuracy=read_accuracy(attempt))
    folder.write_outcome(outcome)
    return folder


def written(folder: Path) -> dict[str, str]:
    """Return the text of each file below `folder` by its path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def with_seed(trial: TrialFolder, folder: Path, seed: int) -> TrialFolder:
    """Return a copy of `trial` in `folder`, as if its schedule had this seed."""
    copy = TrialFolder(Path(copytree(trial.root, folder / f"seed-{seed}")))
    spec = copy.read_spec()
    assert spec is not None
    copy.write_spec(spec.model_copy(update={"load": spec.load.model_copy(update={"seed": seed})}))
    return copy


@pytest.mark.slow
def test_submission_has_the_layout_that_the_checker_reads(
    trial: TrialFolder, tmp_path: Path, regenerate_golden: bool
) -> None:
    submission = write_submission(tmp_path / "sent", trial, ACME)
    files = written(submission.folder)
    listing = "\n".join(sorted(files)) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["sent"], "nothing half-written stays"
    newer = write_submission(tmp_path / "sent", with_seed(trial, tmp_path, ROUNDS[-1].schedule_seed), ACME)
    listing += "\n" + "\n".join(sorted(written(newer.folder))) + "\n"
    if regenerate_golden:
        GOLDEN.write_text(listing)
    assert listing == GOLDEN.read_text()
    by_name = {name.partition("Interactive/")[2]: text for name, text in files.items()}
    assert by_name["user.conf"] == (
        "*.Server.target_qps = 300.0\n*.Server.min_duration = 100\n*.Server.min_query_count = 24\n"
        "*.Server.performance_sample_count_override = 24\n"
    )
    full = (trial.raw / "1" / "accuracy" / "mlperf_log_accuracy.json").read_text()
    sent = by_name["accuracy/mlperf_log_accuracy.json"]
    assert sent == f"{full[:4096]}\n\n...\n\n{full[-4096:]}"
    assert len(sent) < 10 * 1024 < len(full), "the checker refuses a longer one"
    text = by_name["accuracy/accuracy.txt"]
    assert re.search(r"'rougeL': 100\.0, 'exact_match': 100\.0, .*'tokens_per_sample': 650\.0}", text)
    assert text.endswith(f"\nhash={hashlib.sha256(full.encode()).hexdigest()}\n")
    system = json.loads(files["open/ACME/systems/gb200-nvl72x72_dynamo_v0.json"])
    assert (system["number_of_nodes"], system["accelerators_per_node"]) == (18, 4)
    assert "result_validity" in by_name["performance/run_1/mlperf_log_detail.txt"]
    assert "AccuracyOnly" in by_name["accuracy/mlperf_log_detail.txt"]


@pytest.mark.slow
def test_what_the_submitter_states_fills_what_is_lacking(trial: TrialFolder, tmp_path: Path) -> None:
    lacks = write_submission(tmp_path / "sent", trial, SubmitterFacts()).lacks
    assert lacks[0] == "submitter is a placeholder"
    assert lacks[1].startswith("system has no operating_system, cooling, host_processor_model_name, ")
    assert lacks[2] == "measurements has no weight_transformations"
    assert lacks[-1] == "the dataset has 24 samples, the benchmark's 8313"
    other = write_submission(tmp_path / "sent", with_seed(trial, tmp_path, 7), SubmitterFacts())
    assert other.lacks[-1].startswith("load.seed is of no round: expected that of one of v5.1, v6.0")
    names = lacks[1].removeprefix("system has no ").split(", ")
    path = tmp_path / "facts.yaml"
    path.write_text(
        json.dumps(
            {
                "submitter": "ACME",
                "division": "closed",
                "system": dict.fromkeys(names, "known"),
                "measurements": {"weight_transformations": "quantization"},
            }
        )
    )
    filled = write_submission(tmp_path / "sent", trial, read_submitter_facts(path))
    assert not [lack for lack in filled.lacks if "has no" in lack or "placeholder" in lack]
    assert (
        filled.lacks[-1] == "the closed division demands the compliance run TEST06, which tune does not make"
    )
    assert [path.name for path in filled.folder.iterdir()] == ["closed"], "an earlier export is replaced"


@pytest.mark.slow
def test_the_command_exports_the_confirmed_trial_and_prints_what_it_lacks(
    trial: TrialFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    repeats = tmp_path / "runs" / "one.confirm"
    copytree(trial.root, repeats / trial.root.name)
    composed = compose_overrides(["action=export", "study.name=one", "export.to=mlperf"])
    study = StudyFolder(tmp_path / "runs" / "one")
    study.write_study(study_record(composed.settings, "one", composed.words))
    with pytest.raises(ConfigurationError, match="found no trial with an accuracy run"):
        export(composed)
    outcome = trial.read_outcome()
    assert outcome is not None
    winner = RemeasuredConfiguration(outcome, ((composed.settings.load, outcome),), None)
    confirmed = guarantee_rates("one", [winner], 0.95, study_gpu_hours=1.0, gpu_hours=1.0)
    write_confirmation(repeats, with_accuracy(confirmed, outcome))
    export(composed)
    said = capsys.readouterr().out
    assert f"exported  trial {trial.root.name} of one: reports/one/mlperf" in said
    assert "lacks     submitter is a placeholder" in said
    assert (tmp_path / "reports" / "one" / "mlperf" / "open" / "SUBMITTER" / "systems").is_dir()


@pytest.mark.slow
def test_a_folder_of_others_stays_and_a_trial_without_accuracy_is_no_submission(
    trial: TrialFolder, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"found notes.txt; expected a new folder"):
        write_submission(tmp_path, trial, SubmitterFacts())
    assert written(tmp_path) == {"notes.txt": "mine"}
    outcome = trial.read_outcome()
    assert outcome is not None
    other = TrialFolder(tmp_path / "other")
    spec = trial.read_spec()
    assert spec is not None
    other.write_spec(spec)
    other.write_outcome(outcome.model_copy(update={"accuracy": None}))
    with pytest.raises(ConfigurationError, match="found no accuracy run"):
        write_submission(tmp_path / "sent", other, SubmitterFacts())
    assert not (tmp_path / "sent").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("submitter: [", "while parsing"),
        ("submitter: a/b", "submitter"),
        ("system: {cooling: [1]}", "system.cooling"),
        ("owner: me", "owner"),
    ],
)
def test_wrong_facts_are_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text(text)
    with pytest.raises(
        ConfigurationError, match=rf"facts.yaml: .*{said}.*expected a YAML file with submitter"
    ):
        read_submitter_facts(path)
