"""A batch of trials on a place: what is recorded is reused, the rest runs, every outcome is recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.analysis.judge import judge, judge_failed, judge_infeasible
from tune.analysis.measure import measure_attempt
from tune.backends.base import Backend, DetachedBackend, MeasuringBackend
from tune.core.files import make_folder
from tune.deploy.plan import render, write_plan
from tune.engines.check import check
from tune.errors import ResumableError
from tune.records.attempt_record import AttemptRecord
from tune.records.capacity_search import (
    EARLY_STOP_FILE,
    EarlyStopThreshold,
    read_capacity,
    read_early_stop,
    write_early_stop,
)
from tune.records.folders import StudyFolder, read_attempt
from tune.records.outcome import Attempt, Outcome, Probe
from tune.spec.cluster import ClusterFacts
from tune.spec.findings import only_errors
from tune.spec.trial import TrialSpec
from tune.study.interrupts import Interrupts

_POLL_S = 0.01

MAX_FAILED_ATTEMPTS = 3
"""A trial that failed so often is tried again only with rerun=true."""


@dataclass(frozen=True)
class TrialRequest:
    """Trial `number`; `source` is "baseline", a sampler or "command". `provenance` goes on record.

    `goal`: a deployment that clearly stays below its rate is given up.
    """

    number: int
    source: str
    spec: TrialSpec
    provenance: Mapping[str, Any]
    goal: EarlyStopThreshold | None = None


class TrialRunner:
    """Runs jobs on `place` and records outcomes in `study`; `recorded` names the trials that were new.

    `once`: what has not ended is left to run, on a place where that is possible.
    """

    def __init__(self, study: StudyFolder, facts: ClusterFacts, backend: Backend, once: bool = False) -> None:
        self._study = study
        self._facts = facts
        self._place = backend
        self._lasting = backend if isinstance(backend, DetachedBackend) else None
        self._measuring = backend if isinstance(backend, MeasuringBackend) else None
        self._once = once
        self.recorded: set[str] = set()

    def run(self, jobs: Iterable[TrialRequest], rerun: bool = False) -> dict[int, Outcome]:
        """Outcomes by trial number. Jobs that are one configuration share one outcome.

        Each job begins before the next one is asked for.

        A measured or infeasible outcome on record is reused unless `rerun`; a failed one is tried again,
        MAX_FAILED_ATTEMPTS times where attempts outlive this process; an attempt that still runs is waited for.
        Interrupted, it cancels what runs; what is recorded stays. On a place whose attempts go on, the first
        Ctrl-C begins no further one and waits for those that run.
        Raises ResumableError where it is not to wait and something runs.
        """
        numbers: dict[int, str] = {}
        with Interrupts() if self._lasting else nullcontext() as interrupts:
            outcomes = self._run(_distinct(jobs, numbers), rerun, interrupts)
            if interrupts and interrupts.pressed:
                raise KeyboardInterrupt
        return {number: outcomes[trial_id] for number, trial_id in numbers.items()}

    def _run(
        self, jobs: Iterable[TrialRequest], rerun: bool, interrupts: Interrupts | None
    ) -> dict[str, Outcome]:
        """By trial_id, the outcomes of those that were begun."""
        outcomes: dict[str, Outcome] = {}
        running: dict[str, tuple[TrialRequest, Path]] = {}
        try:
            for job in jobs:
                if interrupts and interrupts.pressed:
                    break
                known = self._known(job, rerun)
                if known:
                    outcomes[job.spec.trial_id] = known
                else:
                    handle, attempt = self._begin(job)
                    running[handle] = job, attempt
            for handle in self._ended(running, interrupts):
                job, attempt = running.pop(handle)
                probes = self._measuring.measured(handle) if self._measuring else None
                outcomes[job.spec.trial_id] = self._record(self._collect(job, attempt, probes))
        finally:
            if self._lasting is None:
                for handle in running:
                    self._place.cancel(handle)
        return outcomes

    def _ended(self, running: Mapping[str, object], interrupts: Interrupts | None) -> Iterator[str]:
        """Handles of `running` as they end, until its reader has taken out all."""
        announced = False
        while running:
            yield from [handle for handle in running if self._place.poll(handle) == "ended"]
            if self._once and running:
                raise ResumableError(
                    f"study.once: {len(running)} of this study's trials wait or run; they go on without this "
                    "process. The same command collects what has ended and submits what is due."
                )
            if self._lasting and interrupts and interrupts.pressed and running and not announced:
                announced = True
                self._lasting.announce()
            if running:
                time.sleep(self._lasting.poll_s if self._lasting else _POLL_S)

    def _begin(self, job: TrialRequest) -> tuple[str, Path]:
        """Handle and folder of an attempt of `job`: the one that still runs, or a new one."""
        last = self._study.trial(job.spec.trial_id).last_attempt()
        if self._lasting and last and not read_attempt(last):
            handle = self._lasting.resume(last)
            if handle:
                return handle, last
        attempt = self._prepare(job)
        return self._place.submit(job.spec, attempt), attempt

    def _known(self, job: TrialRequest, rerun: bool) -> Outcome | None:
        """The outcome that stands for `job` without an attempt, or None."""
        folder = self._study.trial(job.spec.trial_id)
        outcome = self._uncollected(job) or (None if rerun else folder.read_outcome())
        if outcome and (outcome.status != "failed" or self._given_up(outcome)):
            return outcome
        broken = only_errors(check(job.spec))
        if not broken:
            return None
        reason = "; ".join(f"{f.path}: found {f.found}, expected {f.expected}" for f in broken)
        folder.write_spec(job.spec)
        return self._record(
            judge_infeasible(
                job.spec,
                reason=reason,
                number=job.number,
                source=job.source,
                attempts=(),
                provenance=job.provenance,
            )
        )

    def _given_up(self, outcome: Outcome) -> bool:
        """Whether another try is likely to be paid for in vain, where attempts go on and nobody may watch."""
        return self._lasting is not None and len(outcome.attempts) >= MAX_FAILED_ATTEMPTS

    def _uncollected(self, job: TrialRequest) -> Outcome | None:
        """The outcome of the last attempt, where that ended and nobody lived to judge it."""
        folder = self._study.trial(job.spec.trial_id)
        ended = [path for path in folder.attempts() if read_attempt(path)]
        if not ended or ended[-1] != folder.last_attempt():
            return None
        outcome = folder.read_outcome()
        if outcome and len(outcome.attempts) >= len(ended):
            return None
        return self._record(self._collect(job, ended[-1]))

    def _prepare(self, job: TrialRequest) -> Path:
        """Write what the trial is and would launch; the folder of its new attempt, made and empty.

        That of the last one, where nothing ever came of it.
        """
        folder = self._study.trial(job.spec.trial_id)
        folder.write_spec(job.spec)
        write_plan(render(job.spec, self._facts), folder.plan)
        last = folder.last_attempt()
        unused = last and not {path.name for path in last.iterdir()} - {EARLY_STOP_FILE}
        attempt = last if last and unused else folder.new_attempt()
        make_folder(attempt)
        if job.goal:
            write_early_stop(attempt, job.goal)
        return attempt

    def _collect(self, job: TrialRequest, attempt: Path, probes: Sequence[Probe] | None = None) -> Outcome:
        """Judge `attempt` by its `probes` or by what it left, and count what all attempts cost."""
        folder = self._study.trial(job.spec.trial_id)
        records = [read_attempt(path) for path in folder.attempts()]
        identity: dict[str, Any] = {
            "number": job.number,
            "source": job.source,
            "attempts": [_count(record, job.spec.hardware.gpus) for record in records if record],
            "provenance": job.provenance,
        }
        last = read_attempt(attempt)
        if last is None:
            return judge_failed(
                job.spec, reason=f"{attempt} was lost: it ended without its record", **identity
            )
        if last.error:
            judge_broken = judge_infeasible if last.cause == "configuration" else judge_failed
            return judge_broken(job.spec, reason=last.error, **identity)
        probes = measure_attempt(attempt, job.spec) if probes is None else probes
        capacity = read_capacity(attempt)
        if capacity is None:
            return judge(job.spec, probes, **identity)
        goal = read_early_stop(attempt) if capacity.censored else None
        outcome = judge(job.spec, probes, found=capacity, unbeaten=goal, **identity)
        again = {"overrides": _at_rate(job.provenance["overrides"], outcome.target_qps)}
        return outcome.model_copy(update={"provenance": outcome.provenance | again})

    def _record(self, outcome: Outcome) -> Outcome:
        self._study.trial(outcome.trial_id).write_outcome(outcome)
        self.recorded.add(outcome.trial_id)
        return outcome


def _distinct(jobs: Iterable[TrialRequest], numbers: dict[int, str]) -> Iterator[TrialRequest]:
    """The first job of each configuration; `numbers` is told of all: number -> trial_id."""
    seen: set[str] = set()
    for job in jobs:
        numbers[job.number] = job.spec.trial_id
        if job.spec.trial_id not in seen:
            seen.add(job.spec.trial_id)
            yield job


def _at_rate(overrides: Sequence[str], target_qps: float) -> list[str]:
    """Those of one run at `target_qps` where `overrides` search for the rate."""
    searched = ("load.mode=", "load.target_qps=", "load.resolution=", "load.rate_range_qps=")
    return [word for word in overrides if not word.startswith(searched)] + [f"load.target_qps={target_qps!r}"]


def _count(record: AttemptRecord, gpus: int) -> Attempt:
    verdict = "measured"
    if record.error:
        verdict = "infeasible" if record.cause == "configuration" else "failed"
    return Attempt.model_validate(
        {
            "started_at": record.started_at,
            "ended_at": record.ended_at,
            "gpu_hours": gpus * record.held_s / 3600,
            "class": verdict,
            "phases": record.phases,
        }
    )
