"""Test GPU-hours: what trials are expected to cost, what a budget leaves, and that it is never exceeded."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.composed import composed
from support.outcomes import measured
from support.studies import run_composed_study

from tune.backends.base import Backend
from tune.errors import ResumableError
from tune.records.attempt_limit import read_limit
from tune.records.attempt_record import AttemptRecord, Phases
from tune.records.folders import StudyFolder, write_attempt
from tune.records.held_time import write_free_after
from tune.spec.backend_kinds import LOCAL, SLURM, Capabilities
from tune.study.budget import RUNS_PER_CAPACITY_SEARCH, Budget, forecast_gpu_hours, remaining_trials
from tune.study.confirmation_candidates import ConfirmationCandidate
from tune.study.recorded_end import BudgetSpent

STAMP = "2026-01-01T00:00:00+00:00"
SETTINGS = composed("cluster=local", "stack=dynamo_v1_mocker", "study.max_gpu_hours=200")
SPEC = SETTINGS.trial_spec
GPUS = SPEC.hardware.gpus


class Rack(Backend):
    """Hold the GPUs of attempts for as long as a test says, but never longer than their limit.

    `idle_s` is how long they may stay held after an attempt; `ended` are those of which nobody knows it yet.
    """

    def __init__(self, capabilities: Capabilities, idle_s: float) -> None:
        self.capabilities, self.idle_s = capabilities, idle_s
        self.ended: dict[Path, float] = {}
        self.running: dict[Path, float] = {}
        self.held_gpu_s = 0.0

    def begin(self, attempt: Path) -> None:
        limit = read_limit(attempt)
        assert limit
        self.running[attempt] = limit.occupied_s
        (attempt / "nodes").touch()
        os.utime(attempt / "nodes", (0, 0))
        os.utime(attempt / "limit.json", (0, 0))

    def end(self, attempt: Path, wanted_s: float, *, recorded: bool) -> None:
        used_s = min(wanted_s, self.running.pop(attempt))
        self.held_gpu_s += GPUS * used_s
        if recorded:
            self.ended[attempt] = used_s
            record = AttemptRecord(started_at=STAMP, ended_at=STAMP, occupied_s=used_s, phases=Phases())
            write_attempt(attempt, record)
            return
        (attempt / "log").touch()
        os.utime(attempt / "log", (used_s, used_s))

    def release(self, attempt: Path, after_s: float) -> None:
        """Let go of the GPUs of an attempt that has ended, `after_s` after its record at most."""
        after_s, used_s = min(after_s, self.idle_s), self.ended.pop(attempt)
        self.held_gpu_s += GPUS * after_s
        write_free_after(attempt, used_s + after_s)

    @property
    def most_gpu_hours(self) -> float:
        """Return what is spent when everything that runs uses its limit, and all GPUs stay held then."""
        ahead_s = sum(limit_s + self.idle_s for limit_s in self.running.values())
        return (self.held_gpu_s + GPUS * (ahead_s + self.idle_s * len(self.ended))) / 3600


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("submit", "submit", "end", "release", "crash")),
        st.integers(1, 4),
        st.floats(0, 20_000),
    ),
    max_size=40,
)


@pytest.mark.slow
@given(events=EVENTS, detached=st.booleans(), idle_s=st.sampled_from((0.0, 120.0)))
@settings(max_examples=60, deadline=None)
def test_no_sequence_of_events_spends_more_than_the_budget(
    events: list[tuple[str, int, float]], detached: bool, idle_s: float
) -> None:
    with TemporaryDirectory() as runs:
        study, rack = StudyFolder(Path(runs)), Rack(SLURM if detached else LOCAL, idle_s)
        budget = Budget(study, SETTINGS, rack)
        for number, (event, at_once, seconds) in enumerate(events):
            if event == "submit":
                trial = study.trial(f"t{number}")
                trial.write_spec(SPEC)
                attempt = trial.new_attempt()
                attempt.mkdir(parents=True)
                try:
                    budget.reserve(SPEC, attempt, at_once)
                except BudgetSpent:
                    assert not budget.affords(SPEC)
                    continue
                rack.begin(attempt)
            elif event == "end" and rack.running:
                attempt = next(iter(rack.running))
                rack.end(attempt, seconds, recorded=True)
                budget.settle(GPUS, attempt)
            elif event == "release" and rack.ended:
                rack.release(next(iter(rack.ended)), seconds / 100)
            elif event == "crash":
                for attempt in () if detached else tuple(rack.running):
                    rack.end(attempt, seconds, recorded=False)
                budget = Budget(study, SETTINGS, rack)
            assert rack.most_gpu_hours <= 200 * (1 + 1e-9)


def test_what_is_not_used_is_left_to_the_next(tmp_path: Path) -> None:
    study, rack = StudyFolder(tmp_path), Rack(LOCAL, 0.0)
    budget = Budget(study, SETTINGS, rack)
    for number in range(12):
        trial = study.trial(f"t{number}")
        trial.write_spec(SPEC)
        attempt = trial.new_attempt()
        attempt.mkdir(parents=True)
        budget.reserve(SPEC, attempt, 1)
        rack.begin(attempt)
        rack.end(attempt, 500, recorded=True)
        budget.settle(GPUS, attempt)
    assert rack.most_gpu_hours == pytest.approx(12 * GPUS * 500 / 3600)


def test_what_an_attempt_holds_after_its_record_is_spent(tmp_path: Path) -> None:
    """Its processes are ended for 100 s: at first all that this may take counts, then what it took."""
    study, rack = StudyFolder(tmp_path), Rack(SLURM, 900.0)
    trial = study.trial("t0")
    attempt = trial.new_attempt()
    attempt.mkdir(parents=True)
    trial.write_spec(SPEC)
    budget = Budget(study, SETTINGS, rack)
    budget.reserve(SPEC, attempt, 1)
    rack.begin(attempt)
    rack.end(attempt, 8000, recorded=True)
    budget.settle(GPUS, attempt)
    with pytest.raises(BudgetSpent, match=rf" {GPUS * 8900 / 3600:.1f} are spent or reserved"):
        budget.reserve(SPEC, trial.new_attempt(), 1)
    rack.release(attempt, 100)
    for each in (budget, Budget(study, SETTINGS, rack)):
        with pytest.raises(BudgetSpent, match=rf" {GPUS * 8100 / 3600:.1f} are spent or reserved"):
            each.reserve(SPEC, trial.new_attempt(), 1)


@pytest.mark.slow
def test_a_simulated_trial_ends_where_the_budget_does(tmp_path: Path) -> None:
    """Its queue grows, so that it takes longer than was expected of it."""
    words = (
        *("+sweep=pd_split", "load.target_qps=40", "study.parallel=1", "study.n_trials=4"),
        *("load.min_duration_s=60", "load.min_queries=2400", "load.concatenate_permutation=false"),
    )
    folder = StudyFolder(tmp_path / "pd_split-sim")
    with pytest.raises(ResumableError, match=r"trial 0 was stopped after .* its share of"):
        run_composed_study(tmp_path, (*words, "study.max_gpu_hours=26"))
    (outcome,) = folder.outcomes()
    assert outcome.status == "failed"
    assert outcome.gpu_hours == pytest.approx(26)
    study = folder.read_study()
    assert study is not None
    assert study.ended is not None
    assert study.ended.kind == "budget"
    outcomes = run_composed_study(tmp_path, (*words, "study.max_gpu_hours=2000"))
    assert [outcome.status for outcome in outcomes].count("failed") == 0
    assert [attempt.class_ for attempt in outcomes[0].attempts] == ["failed", "measured"]


@pytest.mark.parametrize(("budget_gpu_hours", "follow"), [(None, 6), (1000.0, 6), (220.0, 3), (90.0, -1)])
def test_budget_leaves_trials_at_the_cost_of_the_dearest(budget_gpu_hours: float | None, follow: int) -> None:
    """Of 220 GPU-hours 60 are spent, and the next takes 40."""
    outcomes = [
        measured(number).model_copy(update={"trial_id": f"t{number}", "gpu_hours": hours})
        for number, hours in enumerate((20.0, 40.0))
    ]
    assert remaining_trials(6, 1, budget_gpu_hours, outcomes) == follow
    assert remaining_trials(6, 1, budget_gpu_hours, []) == 6, "what a trial costs is not known"


@pytest.mark.slow
def test_study_and_confirmation_price_a_capacity_search_alike() -> None:
    fixed = composed("cluster.calibration.bring_up_s=0")
    capacity = composed("cluster.calibration.bring_up_s=0", "load.mode=capacity")
    before_study = forecast_gpu_hours(capacity, 1) / forecast_gpu_hours(fixed, 1)
    trial = measured(0)
    before_confirmation = ConfirmationCandidate(trial, ()).gpu_hours / trial.attempts[-1].gpu_hours
    assert before_study == pytest.approx(RUNS_PER_CAPACITY_SEARCH)
    assert before_confirmation == pytest.approx(RUNS_PER_CAPACITY_SEARCH)
