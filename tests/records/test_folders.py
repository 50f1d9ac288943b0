import json
import os
from pathlib import Path

import pytest
from support.outcomes import failed, infeasible, measured
from support.request_logs import spec

from tune.errors import ConfigurationError, ResumableError
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import StudyFolder, TrialFolder, read_attempt, write_attempt
from tune.records.study_record import StudyRecord
from tune.spec.load import Slo
from tune.spec.space import IntDimension, Search

GOLDEN = Path(__file__).parents[1] / "data" / "outcome.json"
STUDY = StudyRecord(
    name="pd_split-sim",
    question="Which split?",
    backend="sim",
    stack="dynamo_v0",
    engine="trtllm",
    model="llama3.1-405b-fp4",
    hardware="gb200-nvl72",
    nodes=18,
    gpus_per_node=4,
    gpus=72,
    slo=Slo(ttft_p99_s=4.5, tpot_p99_s=None),
    space={"prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=1, high=17)},
    fill_decode=True,
    search=Search(name="tpe", startup_trials=10),
    seed=0,
    n_trials=40,
    parallel=2,
    max_gpu_hours=None,
    baseline=True,
    base_hash="a",
    cluster_hash="b",
    command=("+sweep=pd_split",),
    versions={"tune": "0.1.0"},
)


@pytest.mark.parametrize("outcome", [measured(), infeasible(), failed()], ids=lambda o: o.status)
def test_outcome_reads_back_unchanged(outcome, tmp_path):
    folder = TrialFolder(tmp_path / outcome.trial_id)
    folder.write_outcome(outcome)
    assert folder.read_outcome() == outcome
    assert [path.name for path in folder.root.iterdir()] == ["outcome.json"]


def test_an_outcome_is_parsed_again_where_its_file_has_changed(tmp_path):
    folder = TrialFolder(tmp_path)
    folder.write_outcome(measured(1))
    first = folder.read_outcome()
    assert folder.read_outcome() is first
    folder.write_outcome(measured(2))
    assert (first.number, folder.read_outcome().number) == (1, 2)
    (tmp_path / "outcome.json").write_text("{")
    with pytest.raises(ResumableError, match=r"outcome\.json: not a readable"):
        folder.read_outcome()
    (tmp_path / "outcome.json").unlink()
    assert folder.read_outcome() is None


def test_outcome_json_has_the_published_keys(tmp_path):
    """The file was written once by hand from the interface and is never regenerated."""
    TrialFolder(tmp_path).write_outcome(measured(7, params={"prefill_workers": 14}, overrides=["a=1"]))
    record = json.loads((tmp_path / "outcome.json").read_text())
    assert record["trial_id"] == spec().trial_id
    record["trial_id"] = "32640cea0413"
    assert record == json.loads(GOLDEN.read_text())


def test_record_without_spread_and_bottleneck_is_readable(tmp_path):
    record = json.loads(GOLDEN.read_text())
    for part in (record, record["probes"][0]):
        del part["spread"], part["bottleneck"]
        part["breakdown"] = {name: part["breakdown"][name] for name in list(part["breakdown"])[:8]}
    (tmp_path / "outcome.json").write_text(json.dumps(record))
    outcome = TrialFolder(tmp_path).read_outcome()
    assert (outcome.spread, outcome.bottleneck, outcome.breakdown.tail_queue_s) == (None, None, None)


def test_spec_study_and_attempt_read_back_unchanged(tmp_path):
    study, trial = StudyFolder(tmp_path), StudyFolder(tmp_path).trial(spec().trial_id)
    study.write_study(STUDY)
    trial.write_spec(spec())
    record = AttemptRecord(
        started_at="a", ended_at="b", occupied_s=3.0, error="out of memory", cause="configuration"
    )
    trial.raw.mkdir()
    write_attempt(trial.new_attempt(), record)
    assert study.read_study() == STUDY
    assert trial.read_spec() == spec()
    assert trial.read_spec().trial_id == spec().trial_id
    assert read_attempt(trial.attempts()[0]) == record


def test_missing_record_reads_as_none(tmp_path):
    study, trial = StudyFolder(tmp_path / "none"), TrialFolder(tmp_path / "none")
    assert study.read_study() is None
    assert (trial.read_spec(), trial.read_outcome(), trial.last_attempt()) == (None, None, None)
    assert (study.trials(), study.outcomes(), trial.attempts()) == ((), (), ())
    assert read_attempt(tmp_path / "none") is None


def test_next_attempt_follows_the_highest_number(tmp_path):
    folder = TrialFolder(tmp_path)
    assert folder.new_attempt() == tmp_path / "raw" / "1"
    for name in ("1", "2", "10", "notes", "3.tmp"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    assert [path.name for path in folder.attempts()] == ["1", "2", "10"]
    assert (folder.last_attempt().name, folder.new_attempt().name) == ("10", "11")


def test_outcomes_are_sorted_by_number(tmp_path):
    study = StudyFolder(tmp_path)
    for number, name in ((2, "aa"), (0, "bb"), (1, "cc")):
        study.trial(name).write_outcome(measured(number))
    study.trial("dd").write_spec(spec())
    assert [outcome.number for outcome in study.outcomes()] == [0, 1, 2]
    assert [trial.root.name for trial in study.trials()] == ["dd"]


GOOD = measured().model_dump(mode="json", by_alias=True)
BROKEN = {
    "torn": (json.dumps(GOOD)[:200], "Invalid JSON"),
    "empty": ("", "Invalid JSON"),
    "not text": (b"\xff\xfe\x00", "Invalid JSON"),
    "a list": ("[]", "should be an object"),
    "no status": (json.dumps({k: v for k, v in GOOD.items() if k != "status"}), "status: Field required"),
    "unknown status": (json.dumps(GOOD | {"status": "done"}), "status: Input should be"),
    "an extra key": (json.dumps(GOOD | {"score": 1}), "score: Extra inputs are not permitted"),
    "a text for a number": (json.dumps(GOOD | {"gpus": "72"}), "gpus: Input should be a valid integer"),
    "not a number": (
        json.dumps(GOOD | {"output_tps": float("nan")}),
        "output_tps: Input should be a finite number",
    ),
    "a fault inside": (
        json.dumps(GOOD | {"ttft_s": {"p50": 1.0}}),
        "ttft_s.mean: Field required, and 6 more",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_outcome_error_says_what_to_do(kind, tmp_path):
    text, fault = BROKEN[kind]
    path = tmp_path / "study" / "0123456789ab" / "outcome.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ResumableError) as raised:
        StudyFolder(tmp_path / "study").outcomes()
    message = str(raised.value)
    assert message.startswith(f"{path}: not a readable outcome.json (")
    assert fault in message
    assert "Move the file away and run the same command again: nothing else is lost." in message
    assert path.exists()


@pytest.mark.parametrize(
    ("schema", "writer", "says"),
    [
        (
            1,
            {"versions": {"tune": "0.1.0"}},
            "written by tune 0.1.0 in schema 1; this version reads schema 2",
        ),
        (1, {"provenance": {"versions": {"tune": "0.1.0"}}}, "written by tune 0.1.0 in schema 1"),
        (1, {"provenance": {}}, "written by an earlier version of tune in schema 1"),
        (3, {"provenance": {}}, "written by a later version of tune in schema 3"),
    ],
)
def test_outcome_of_another_version_says_which_and_what_to_do(schema, writer, says, tmp_path):
    path = tmp_path / "study" / "0123456789ab" / "outcome.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(GOOD | {"schema": schema} | writer))
    with pytest.raises(ConfigurationError) as raised:
        StudyFolder(tmp_path / "study").outcomes()
    assert says in str(raised.value)
    assert "study.name=NAME" in str(raised.value)
    assert raised.value.exit_code == 2


def test_damaged_study_and_spec_errors_name_the_file(tmp_path):
    (tmp_path / "study.json").write_text('{"schema": 2}')
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(
        ResumableError, match=r"study\.json: not a readable study\.json \(name: Field required"
    ):
        StudyFolder(tmp_path).read_study()
    with pytest.raises(
        ResumableError, match=r"spec\.json: not a readable spec\.json \(model: Field required"
    ):
        TrialFolder(tmp_path).read_spec()


def test_outcome_that_is_a_folder_raises(tmp_path):
    (tmp_path / "outcome.json").mkdir()
    with pytest.raises(
        ResumableError, match=r"outcome\.json: not a readable outcome\.json \(Is a directory\)"
    ):
        TrialFolder(tmp_path).read_outcome()


def test_unwritable_folder_raises_one_clear_error(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(
        ConfigurationError, match=r"study\.json: cannot be written \(.*\); expected a folder with write"
    ):
        StudyFolder(tmp_path / "runs" / "study").write_study(STUDY)


def test_failed_write_keeps_the_old_record(tmp_path, monkeypatch):
    folder = TrialFolder(tmp_path)
    folder.write_outcome(measured(1))

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", disk_full)
    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(ResumableError, match=r"outcome\.json: cannot be written \(No space left on device\)"):
        folder.write_outcome(measured(2))
    assert folder.read_outcome().number == 1
