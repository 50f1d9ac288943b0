"""Test that failed trials are run again, stop the study, or count, by the class of the failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from support.composed import composed
from support.outcomes import probe

from tune.backends.base import AttemptState, Backend
from tune.errors import ResumableError
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import StudyFolder, write_attempt
from tune.records.outcome import Outcome, Probe
from tune.report.failure_text import failure_lines
from tune.spec.backend_kinds import LOCAL, SIMULATOR, Capabilities
from tune.spec.failure import FailureCause, FailureEvidence
from tune.spec.trial import TrialSpec
from tune.study.failed_trials import require_harness
from tune.study.listener import StudyListener
from tune.study.recorded_end import HarnessFailed
from tune.study.trial_runner import TrialRequest, TrialRunner

QUICK = ("load.min_duration_s=10", "load.min_queries=100", "load.concatenate_permutation=false")
"""A trial that is expected to take less time than its attempts take here."""

STAMP = "2026-01-01T00:00:00+00:00"
HOLDS = probe()
LOST = probe(valid=False, reason="330 of 16626 requests unanswered").model_copy(update={"may_pass": True})
TOO_SHORT = probe(valid=False, reason="40 requests; expected at least 459")


class End(NamedTuple):
    """Declare how an attempt ends: the cause of its failure, or what it measured."""

    cause: FailureCause | None = None
    evidence: FailureEvidence | None = None
    measured: Probe = HOLDS


def failed(cause: FailureCause, *, repeats: bool = True) -> End:
    evidence = FailureEvidence(
        rule="a_rule",
        cause=cause,
        meaning="something broke",
        next_step="Mend it.",
        text="it broke",
        file="raw/1/logs/g02_prefill_w3.out",
        line=812,
        repeats=repeats,
    )
    return End(cause, evidence)


class Scripted(Backend):
    """End attempts one after the other as `ends` says."""

    def __init__(self, ends: Sequence[End], capabilities: Capabilities = LOCAL) -> None:
        self.capabilities = capabilities
        self._ends: Iterator[End] = iter(ends)
        self._probes: dict[str, Probe] = {}
        self.submitted = 0

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        self.submitted += 1
        end = next(self._ends)
        record = AttemptRecord(
            started_at=STAMP,
            ended_at=STAMP,
            occupied_s=50.0,
            error="gone" if end.cause else None,
            cause=end.cause,
            evidence=end.evidence,
        )
        write_attempt(attempt, record)
        self._probes[str(attempt)] = end.measured
        return str(attempt)

    def poll(self, handle: str) -> AttemptState:
        return "ended"

    def cancel(self, handle: str) -> None:
        return

    def probes(self, handle: str) -> Sequence[Probe]:
        return (self._probes[handle],)


class Repeats(StudyListener):
    """Count the trials that run again."""

    def __init__(self) -> None:
        self.count = 0

    def trial_repeated(self, outcome: Outcome) -> None:
        self.count += 1


Run = Callable[..., tuple[Outcome, Scripted]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_trial(
        *ends: End, retries: int = 1, capabilities: Capabilities = LOCAL, words: tuple[str, ...] = ()
    ) -> tuple[Outcome, Scripted]:
        fixed = ("cluster=local", "stack=dynamo_v1_mocker", f"study.retries={retries}")
        settings = composed(*fixed, *words)
        backend, repeats = Scripted(ends, capabilities), Repeats()
        request = TrialRequest(0, "command", settings.trial_spec, {"overrides": []})
        (tmp_path / "one").mkdir(exist_ok=True)
        runner = TrialRunner(StudyFolder(tmp_path / "one"), settings, backend, repeats)
        outcome = runner.run([request])[0]
        assert repeats.count == backend.submitted - 1
        return outcome, backend

    return run_trial


def classes(outcome: Outcome) -> list[str]:
    return [attempt.class_ for attempt in outcome.attempts]


def test_an_infrastructure_failure_is_followed_by_another_attempt(run: Run) -> None:
    outcome, _ = run(failed("infrastructure"), End())
    assert outcome.status == "measured"
    assert classes(outcome) == ["failed", "measured"]
    assert outcome.gpu_hours == pytest.approx(2 * 50 / 3600 * outcome.gpus)


def test_failures_end_with_the_retries(run: Run) -> None:
    outcome, backend = run(*[failed("infrastructure")] * 3, retries=2)
    assert outcome.status == "failed"
    assert backend.submitted == 3


def test_a_budget_that_is_spent_leaves_no_retry(run: Run) -> None:
    cost = 50 / 3600 * composed().hardware.gpus
    outcome, backend = run(failed("infrastructure"), words=(*QUICK, f"study.max_gpu_hours={1.9 * cost}"))
    assert outcome.status == "failed"
    assert backend.submitted == 1


def test_a_budget_that_suffices_leaves_one(run: Run) -> None:
    cost = 50 / 3600 * composed().hardware.gpus
    outcome, _ = run(failed("infrastructure"), End(), words=(*QUICK, f"study.max_gpu_hours={2.1 * cost}"))
    assert outcome.status == "measured"


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (failed("configuration"), "infeasible"),
        (failed("harness"), "failed"),
        (failed("infrastructure", repeats=False), "failed"),
        (End(measured=TOO_SHORT), "measured"),
    ],
)
def test_what_would_end_alike_is_not_repeated(end: End, status: str, run: Run) -> None:
    outcome, backend = run(end)
    assert outcome.status == status
    assert backend.submitted == 1


def test_a_measurement_that_is_not_valid_is_made_once_more(run: Run) -> None:
    outcome, _ = run(End(measured=LOST), End())
    assert outcome.valid
    assert classes(outcome) == ["measured", "measured"]


def test_a_measurement_is_not_made_a_third_time(run: Run) -> None:
    outcome, backend = run(*[End(measured=LOST)] * 3, retries=5)
    assert not outcome.valid
    assert backend.submitted == 2


def test_the_simulator_measures_once(run: Run) -> None:
    outcome, backend = run(End(measured=LOST), capabilities=SIMULATOR)
    assert not outcome.valid
    assert backend.submitted == 1


def test_a_fault_of_the_harness_stops_the_study_with_the_next_step(run: Run) -> None:
    outcome, _ = run(failed("harness"))
    with pytest.raises(HarnessFailed, match=r"Trial 0 failed, as every other would: gone\n.*Mend it\."):
        require_harness([outcome])
    assert issubclass(HarnessFailed, ResumableError)


def test_other_outcomes_do_not(run: Run) -> None:
    outcome, _ = run(failed("infrastructure"), failed("infrastructure"))
    require_harness([outcome])


def test_status_states_class_evidence_and_next_step(run: Run) -> None:
    outcome, _ = run(failed("infrastructure"), End(measured=LOST))
    assert failure_lines(outcome) == [
        "class     infrastructure, attempt 1: a node, the network, the file system or the scheduler: the "
        "search learns nothing",
        "evidence  something broke (a_rule)",
        "          raw/1/logs/g02_prefill_w3.out:812: it broke",
        "next      Mend it.",
        "class     measurement: the deployment ran, and what was measured cannot be trusted: it counts for "
        "nothing",
        "next      It may pass: rerun=true measures the trial again.",
    ]


def test_status_of_a_trial_that_held_has_no_class(run: Run) -> None:
    outcome, _ = run(End())
    assert failure_lines(outcome) == []
