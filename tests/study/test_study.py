"""Test studies on the simulated rack: observed in order, resumed from any point, stopped by failures."""

from __future__ import annotations

import errno
import fcntl
import json
from pathlib import Path

import pytest
from support.composed import composed
from support.studies import (
    CountingSimulator,
    FailingBackend,
    Recording,
    ignore_submission,
    reproducible_fields,
    run_composed_study,
)

from tune.analysis.ranking import rank
from tune.backends.base import AttemptState
from tune.config import compose_overrides
from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.loop import is_running, open_study, run_trial
from tune.study.registry import SEARCH_METHODS, SearchMethod

SHORT = ("load.min_duration_s=120.0", "load.concatenate_permutation=false", "study.parallel=4")
SPLIT = ("+sweep=pd_split", "study.n_trials=10", *SHORT)


@pytest.mark.slow
def test_study_is_reproducible_on_any_number_of_processes(tmp_path: Path) -> None:
    one = run_composed_study(tmp_path / "one", SPLIT)
    two = run_composed_study(
        tmp_path / "two", SPLIT, CountingSimulator(compose_overrides(SPLIT), ignore_submission, workers=2)
    )
    assert reproducible_fields(one) == reproducible_fields(two)
    assert rank(one) == rank(two)
    names = [StudyFolder(tmp_path / n / "pd_split-sim").read_proposals() for n in ("one", "two")]
    assert names[0] == names[1]


def test_study_tells_what_its_trials_do(tmp_path: Path) -> None:
    received = Recording()
    run_composed_study(tmp_path, (*SPLIT, "study.n_trials=1"), listener=received)
    begun, *steps, recorded = received.steps
    assert begun == (0, "14P4D begun")
    assert steps[0] == (0, "probe 1: full run at 15.75 queries/s")
    assert steps[1:] in ([], [(0, f"shuffle {number} of 4") for number in range(1, 5)])
    assert recorded == (0, "recorded")


@pytest.mark.slow
def test_trial_0_is_the_baseline_unless_switched_off(tmp_path: Path) -> None:
    reference = composed(*SPLIT).trial_spec.trial_id
    first = run_composed_study(tmp_path / "with", SPLIT)[0]
    assert (first.number, first.source, first.trial_id) == (0, "baseline", reference)
    without = run_composed_study(tmp_path / "without", (*SPLIT, "study.baseline=false"))
    assert {outcome.source for outcome in without} == {"tpe"}


@pytest.mark.slow
def test_finished_study_runs_nothing_again(tmp_path: Path) -> None:
    first = run_composed_study(tmp_path, SPLIT)
    again = CountingSimulator(compose_overrides(SPLIT), ignore_submission)
    received = Recording()
    second = run_composed_study(tmp_path, SPLIT, again, received)
    assert reproducible_fields(second) == reproducible_fields(first)
    assert again.submitted == 0
    assert received.steps == [(number, "recorded") for number in range(10)]


@pytest.mark.slow
def test_finished_study_asks_its_search_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To let it observe thousands of trials again takes a minute."""
    before = run_composed_study(tmp_path, SPLIT)
    with monkeypatch.context() as no_search:
        no_search.setitem(SEARCH_METHODS, "tpe", SearchMethod(pytest.fail, pytest.fail))
        listener = Recording()
        assert run_composed_study(tmp_path, SPLIT, listener=listener) == before
        assert [outcome.number for outcome in listener.outcomes] == list(range(10))
    study = StudyFolder(tmp_path / "pd_split-sim").read_study()
    assert study is not None
    assert study.ended is not None
    assert (study.ended.kind, study.ended.proposed) == ("trials", 10)
    (tmp_path / "pd_split-sim" / before[4].trial_id / "outcome.json").unlink()
    assert reproducible_fields(run_composed_study(tmp_path, SPLIT)) == reproducible_fields(before)


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [0, 3, 5, 9])
def test_interrupted_study_ends_as_an_uninterrupted_one(tmp_path: Path, killed_at: int) -> None:
    def interrupt(number: int) -> None:
        if number == killed_at:
            raise KeyboardInterrupt

    whole = run_composed_study(tmp_path / "whole", SPLIT)
    with pytest.raises(KeyboardInterrupt):
        run_composed_study(tmp_path / "cut", SPLIT, CountingSimulator(compose_overrides(SPLIT), interrupt))
    resumed = CountingSimulator(compose_overrides(SPLIT), ignore_submission)
    assert reproducible_fields(run_composed_study(tmp_path / "cut", SPLIT, resumed)) == reproducible_fields(
        whole
    )
    assert resumed.submitted <= 10 - killed_at, "what was recorded before is not run again"


@pytest.mark.slow
def test_torn_proposal_is_suggested_again(tmp_path: Path) -> None:
    whole = run_composed_study(tmp_path, SPLIT)
    proposals = tmp_path / "pd_split-sim" / "proposals.jsonl"
    lines = proposals.read_bytes()
    proposals.write_bytes(lines[: lines.rindex(b'"params"')])
    assert reproducible_fields(run_composed_study(tmp_path, SPLIT)) == reproducible_fields(whole)
    assert proposals.read_bytes() == lines


@pytest.mark.slow
def test_ended_attempt_without_outcome_is_judged_and_not_run(tmp_path: Path) -> None:
    whole = run_composed_study(tmp_path, SPLIT)
    lost = tmp_path / "pd_split-sim" / whole[6].trial_id / "outcome.json"
    lost.unlink()
    again = CountingSimulator(compose_overrides(SPLIT), ignore_submission)
    assert reproducible_fields(run_composed_study(tmp_path, SPLIT, again)) == reproducible_fields(whole)
    assert again.submitted == 0
    assert lost.exists()


@pytest.mark.slow
def test_torn_attempt_is_run_again_beside_it(tmp_path: Path) -> None:
    whole = run_composed_study(tmp_path, SPLIT)
    trial = tmp_path / "pd_split-sim" / whole[6].trial_id
    (trial / "outcome.json").unlink()
    (trial / "raw" / "1" / "attempt.json").unlink()
    again = CountingSimulator(compose_overrides(SPLIT), ignore_submission)
    assert rank(run_composed_study(tmp_path, SPLIT, again)) == rank(whole)
    assert again.submitted == 1
    assert sorted(path.name for path in (trial / "raw").iterdir()) == ["1", "2"]


class Losing(CountingSimulator):
    """Fail every attempt: it ends without a record."""

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        self.submitted += 1
        return str(attempt)

    def poll(self, handle: str) -> AttemptState:
        return "ended"


@pytest.mark.slow
def test_lost_attempt_fails_and_hides_no_older_result(tmp_path: Path) -> None:
    lost = Losing(compose_overrides(SPLIT), ignore_submission)
    with pytest.raises(ResumableError, match="was lost"):
        run_composed_study(tmp_path, SPLIT, lost)
    assert lost.submitted == 8, "each trial twice"
    assert {outcome.status for outcome in run_composed_study(tmp_path, SPLIT)} == {"measured"}
    with pytest.raises(ResumableError, match="was lost"):
        run_composed_study(
            tmp_path, (*SPLIT, "rerun=true"), Losing(compose_overrides(SPLIT), ignore_submission)
        )


@pytest.mark.slow
def test_one_process_runs_a_study(tmp_path: Path) -> None:
    run_composed_study(tmp_path, (*SPLIT, "study.n_trials=1"))
    with (tmp_path / "pd_split-sim" / ".lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another process is running this study"):
            run_composed_study(tmp_path, SPLIT)


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks_is_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, "no locks here")

    (tmp_path / "pd_split-sim").mkdir()
    (tmp_path / "pd_split-sim" / ".lock").touch()
    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(ConfigurationError, match=r"\.lock: cannot be locked \(no locks here\)"):
        run_composed_study(tmp_path, (*SPLIT, "study.n_trials=1"))
    with pytest.raises(ConfigurationError, match="expected a file system with flock"):
        is_running(tmp_path / "pd_split-sim")


@pytest.mark.slow
def test_damaged_outcome_stops_the_study_and_is_kept(tmp_path: Path) -> None:
    outcome = run_composed_study(tmp_path, SPLIT)[4]
    damaged = tmp_path / "pd_split-sim" / outcome.trial_id / "outcome.json"
    damaged.write_text('{"schema": 2, "trial_id": ')
    with pytest.raises(ResumableError) as caught:
        run_composed_study(tmp_path, SPLIT)
    assert str(damaged) in str(caught.value)
    assert damaged.read_text() == '{"schema": 2, "trial_id": '


@pytest.mark.slow
def test_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        run_composed_study(blocked, SPLIT)


@pytest.mark.slow
def test_point_that_breaks_a_rule_is_infeasible_and_observed(tmp_path: Path) -> None:
    overrides = ("+sweep=parallelism", "study.n_trials=12", "search=random", *SHORT)
    backend = CountingSimulator(compose_overrides(overrides), ignore_submission)
    outcomes = run_composed_study(tmp_path, overrides, backend)
    broken = [outcome for outcome in outcomes if outcome.status == "infeasible"]
    assert broken, "a box of parallelism and workers holds splits that do not fit"
    assert backend.submitted == len(outcomes) - len(broken)
    assert all("split" in (outcome.reason or "") for outcome in broken)
    assert all(outcome.gpu_hours == 0 for outcome in broken)


@pytest.mark.slow
def test_failures_stop_the_study_and_it_resumes_when_mended(tmp_path: Path) -> None:
    broken = FailingBackend(compose_overrides(SPLIT), ignore_submission)
    with pytest.raises(ResumableError, match=r"node gb07 is down[\s\S]*run the same command again"):
        run_composed_study(tmp_path, SPLIT, broken)
    assert broken.submitted == 8, "the first batch, each trial twice, no more"
    mended = run_composed_study(tmp_path, SPLIT)
    assert {outcome.status for outcome in mended} == {"measured"}
    assert [attempt.class_ for attempt in mended[0].attempts] == ["failed", "failed", "measured"]
    assert mended[0].gpu_hours > 72 * 36 / 3600


@pytest.mark.slow
def test_batch_beyond_the_budget_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ResumableError, match=r"The budget of 200 GPU-hours .* ends the study"):
        run_composed_study(tmp_path, (*SPLIT, "study.max_gpu_hours=200"))
    folder = StudyFolder(tmp_path / "pd_split-sim")
    assert 4 <= len(folder.outcomes()) < 10
    assert sum(outcome.gpu_hours for outcome in folder.outcomes()) <= 200 * (1 + 1e-9)
    assert len(run_composed_study(tmp_path, (*SPLIT, "study.max_gpu_hours=2000"))) == 10


@pytest.mark.slow
def test_overrides_of_a_ranking_row_reproduce_it_exactly(tmp_path: Path) -> None:
    outcomes = run_composed_study(tmp_path, SPLIT)
    for row in rank(outcomes)[:3]:
        composition = compose_overrides(row["overrides"])
        settings = composition.settings
        with (
            open_study(tmp_path / f"again-{row['rank']}", study_record(settings, "again", ())) as folder,
            CountingSimulator(composition, ignore_submission) as backend,
        ):
            outcome, fresh = run_trial(folder, settings, backend, lambda spec: ())
        assert fresh
        assert outcome.trial_id == row["trial_id"]
        first = next(o for o in outcomes if o.trial_id == row["trial_id"])
        same = {"output_tps_per_gpu", "ttft_s", "tpot_s", "latency_s", "probes", "breakdown", "constraints"}
        assert outcome.model_dump(include=same) == first.model_dump(include=same)


@pytest.mark.slow
def test_single_trial_is_measured_again_only_with_rerun(tmp_path: Path) -> None:
    def measure_once(*more: str) -> tuple[Outcome, bool]:
        composition = compose_overrides([*SHORT, *more])
        settings = composition.settings
        with (
            open_study(tmp_path / "single-sim", study_record(settings, "single-sim", ())) as folder,
            CountingSimulator(composition, ignore_submission) as backend,
        ):
            return run_trial(folder, settings, backend, lambda spec: ())

    first, fresh = measure_once()
    assert fresh
    second, fresh = measure_once()
    assert not fresh
    assert second == first
    other, fresh = measure_once("load.target_qps=12.0")
    assert (other.number, fresh) == (1, True)
    third, fresh = measure_once("rerun=true")
    assert fresh
    assert third.number == 0
    assert len(third.attempts) == 2
    assert third.output_tps_per_gpu == first.output_tps_per_gpu
    with pytest.raises(ConfigurationError, match=r"cluster.calibration"):
        measure_once("cluster.calibration.prefill_scale=2.0")
    record = StudyFolder(tmp_path / "single-sim").read_study()
    assert record is not None
    assert (record.n_trials, record.hardware) == (2, "gb200-nvl72")
    measure_once("hardware=gb300_nvl72")
    record = StudyFolder(tmp_path / "single-sim").read_study()
    assert record is not None
    assert (record.n_trials, record.hardware) == (3, "several, each trial its own")


def test_study_folder_holds_the_documented_files(tmp_path: Path) -> None:
    outcomes = run_composed_study(tmp_path, (*SPLIT, "study.n_trials=2"))
    study = tmp_path / "pd_split-sim"
    assert json.loads((study / "study.json").read_text())["schema"] == 2
    proposals = [json.loads(line) for line in (study / "proposals.jsonl").read_text().splitlines()]
    fields = {"number", "params", "source", "trial_id", "expected_capacity_qps", "early_stop_below_qps"}
    assert [set(p) for p in proposals] == [fields] * 2
    trial = study / outcomes[1].trial_id
    assert {path.name for path in trial.iterdir()} == {"spec.json", "plan", "raw", "outcome.json"}
    assert {"prefill.yaml", "decode.yaml", "environment", "commands", "job.sbatch"} <= {
        path.name for path in (trial / "plan").iterdir()
    }
    probe = trial / json.loads((trial / "outcome.json").read_text())["probes"][0]["raw"]
    assert {path.name for path in probe.iterdir()} == {
        "mlperf_log_summary.txt",
        "mlperf_log_detail.txt",
        "requests.npz",
    }
    assert TrialSpec.model_validate_json((trial / "spec.json").read_text()).trial_id == outcomes[1].trial_id
