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
def test_an_outcome_comes_back_as_it_was(outcome, tmp_path):
    folder = TrialFolder(tmp_path / outcome.trial_id)
    folder.write_outcome(outcome)
    assert folder.read_outcome() == outcome
    assert [path.name for path in folder.root.iterdir()] == ["outcome.json"]


def test_the_keys_of_outcome_json(tmp_path):
    """The file as other programs read it: written once by hand from the interface, never regenerated."""
    TrialFolder(tmp_path).write_outcome(measured(7, params={"prefill_workers": 14}, overrides=["a=1"]))
    record = json.loads((tmp_path / "outcome.json").read_text())
    assert record["trial_id"] == spec().trial_id
    record["trial_id"] = "32640cea0413"
    assert record == json.loads(GOLDEN.read_text())


def test_a_record_from_before_spread_and_binding_is_read(tmp_path):
    record = json.loads(GOLDEN.read_text())
    for part in (record, record["probes"][0]):
        del part["spread"], part["binding"]
        part["breakdown"] = {name: part["breakdown"][name] for name in list(part["breakdown"])[:8]}
    (tmp_path / "outcome.json").write_text(json.dumps(record))
    outcome = TrialFolder(tmp_path).read_outcome()
    assert (outcome.spread, outcome.binding, outcome.breakdown.tail_queue_s) == (None, None, None)


def test_spec_study_and_attempt_come_back_as_they_were(tmp_path):
    study, trial = StudyFolder(tmp_path), StudyFolder(tmp_path).trial(spec().trial_id)
    study.write_study(STUDY)
    trial.write_spec(spec())
    record = AttemptRecord(
        started_at="a", ended_at="b", held_s=3.0, error="out of memory", cause="configuration"
    )
    write_attempt(trial.new_attempt(), record)
    assert study.read_study() == STUDY
    assert trial.read_spec() == spec()
    assert trial.read_spec().trial_id == spec().trial_id
    assert read_attempt(trial.attempts()[0]) == record


def test_what_was_never_written_is_none(tmp_path):
    study, trial = StudyFolder(tmp_path / "none"), TrialFolder(tmp_path / "none")
    assert study.read_study() is None
    assert (trial.read_spec(), trial.read_outcome(), trial.last_attempt()) == (None, None, None)
    assert (study.trials(), study.outcomes(), trial.attempts()) == ((), (), ())
    assert read_attempt(tmp_path / "none") is None


def test_attempts_are_counted_on(tmp_path):
    folder = TrialFolder(tmp_path)
    assert folder.new_attempt() == tmp_path / "raw" / "1"
    for name in ("1", "2", "10", "notes", "3.tmp"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    assert [path.name for path in folder.attempts()] == ["1", "2", "10"]
    assert (folder.last_attempt().name, folder.new_attempt().name) == ("10", "11")


def test_outcomes_by_number(tmp_path):
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
    "another schema": (json.dumps(GOOD | {"schema": 2}), "schema: Input should be 1"),
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
def test_a_damaged_outcome_says_what_to_do(kind, tmp_path):
    text, fault = BROKEN[kind]
    path = tmp_path / "study" / "0123456789ab" / "outcome.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ResumableError) as raised:
        StudyFolder(tmp_path / "study").outcomes()
    message = str(raised.value)
    assert message.startswith(f"{path}: not a readable outcome.json (")
    assert fault in message
    assert "Move the file away, or run the trial again with rerun=true: nothing is deleted." in message
    assert path.exists()


def test_a_damaged_study_and_spec_name_their_file(tmp_path):
    (tmp_path / "study.json").write_text('{"schema": 1}')
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(
        ResumableError, match=r"study\.json: not a readable study\.json \(name: Field required"
    ):
        StudyFolder(tmp_path).read_study()
    with pytest.raises(
        ResumableError, match=r"spec\.json: not a readable spec\.json \(model: Field required"
    ):
        TrialFolder(tmp_path).read_spec()


def test_an_outcome_that_is_a_folder(tmp_path):
    (tmp_path / "outcome.json").mkdir()
    with pytest.raises(
        ResumableError, match=r"outcome\.json: not a readable outcome\.json \(Is a directory\)"
    ):
        TrialFolder(tmp_path).read_outcome()


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(
        ConfigurationError, match=r"study\.json: cannot be written \(.*\); expected a folder with write"
    ):
        StudyFolder(tmp_path / "runs" / "study").write_study(STUDY)


def test_a_failed_write_leaves_the_old_record(tmp_path, monkeypatch):
    folder = TrialFolder(tmp_path)
    folder.write_outcome(measured(1))

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", disk_full)
    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(ResumableError, match=r"outcome\.json: cannot be written \(No space left on device\)"):
        folder.write_outcome(measured(2))
    assert folder.read_outcome().number == 1
