"""Run a batch of trials on a backend: reuse recorded outcomes, run the rest, record every outcome."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.analysis.judge import TrialFacts, judge, judge_unmeasured
from tune.analysis.measure import measure_attempt
from tune.analysis.model_error_sources import estimate_model_error
from tune.backends.base import Backend
from tune.core.files import MOVE_ATTEMPT, MOVE_BACK, make_folder
from tune.deploy.plan import render, write_plan
from tune.engines.check import check
from tune.errors import ResumableError
from tune.records.accuracy import read_accuracy
from tune.records.attempt_limit import LIMIT_FILE
from tune.records.attempt_record import AttemptRecord
from tune.records.capacity_search import (
    EARLY_STOP_FILE,
    EarlyStopThreshold,
    read_capacity,
    read_early_stop,
    write_early_stop,
)
from tune.records.evidence import read_evidence
from tune.records.folders import StudyFolder, read_attempt
from tune.records.outcome import Attempt, Outcome, Probe
from tune.spec.environment import recorded_environments
from tune.spec.findings import only_errors
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.budget import Budget
from tune.study.interrupts import Interrupts
from tune.study.listener import SILENT, StudyListener
from tune.study.recorded_end import BudgetSpent
from tune.study.retries import Retries


@dataclass(frozen=True)
class TrialRequest:
    """Ask for one measured trial.

    Attributes
    ----------
    number
        Number of the trial in its study.
    source
        "baseline", the name of a search method, "command" or "confirm".
    spec
        The configuration and load to measure.
    provenance
        What goes on record of the trial's origin.
    early_stop
        The rate below which the deployment is stopped early; None where it is always measured exactly.
    """

    number: int
    source: str
    spec: TrialSpec
    provenance: Mapping[str, Any]
    early_stop: EarlyStopThreshold | None = None


class TrialRunner:
    """Run trial requests on a backend and record the outcomes in a study.

    `recorded` holds the trial_ids whose outcomes are new. With `study.once` of the settings, attempts that
    have not ended are left to run, on a backend whose attempts are detached. `listener` learns what attempts
    do.
    """

    def __init__(
        self, study: StudyFolder, settings: Settings, backend: Backend, listener: StudyListener = SILENT
    ) -> None:
        self._study = study
        self._facts = settings.cluster
        self._backend = backend
        self._detached = backend.capabilities.detached
        self._once = settings.study.once
        self._retries = Retries(settings, backend.capabilities)
        self._budget, self._at_once = Budget(study, settings, backend), settings.parallel
        self._listener = listener
        self.recorded: set[str] = set()

    def run(self, requests: Iterable[TrialRequest], rerun: bool = False) -> dict[int, Outcome]:
        """Return outcomes by trial number; requests of one configuration share one outcome.

        Each attempt is submitted before the next request is taken from `requests`. Raises BudgetSpent where
        study.max_gpu_hours does not leave what the next one needs, once those that run have ended.

        A measured or infeasible outcome on record is reused unless `rerun`. A failed one is tried again, up
        to MAX_FAILED_ATTEMPTS times where attempts are detached. An attempt that still runs is waited for. An
        attempt that failed, or that measured what is not valid, for a reason that may pass is followed by up
        to study.retries others, as far as study.max_gpu_hours leaves them.
        When interrupted, it cancels running attempts; records stay. With detached attempts the first
        Ctrl-C stops further submissions and waits for those that run. Raises ResumableError where `once` is
        set and an attempt has not ended.
        """
        trial_ids: dict[int, str] = {}
        with Interrupts() if self._detached else nullcontext() as interrupts:
            outcomes = self._run(_distinct(requests, trial_ids), rerun, interrupts)
            if interrupts and interrupts.pressed:
                raise KeyboardInterrupt
        return {number: outcomes[trial_id] for number, trial_id in trial_ids.items()}

    def _run(
        self, requests: Iterable[TrialRequest], rerun: bool, interrupts: Interrupts | None
    ) -> dict[str, Outcome]:
        """Return the outcomes of all requests that were begun, by trial_id."""
        outcomes: dict[str, Outcome] = {}
        running: dict[str, tuple[TrialRequest, Path]] = {}
        spent: BudgetSpent | None = None
        try:
            for request in requests:
                if interrupts and interrupts.pressed:
                    break
                known = self._known(request, rerun)
                if known:
                    outcomes[request.spec.trial_id] = known
                    continue
                try:
                    self._add(request, running)
                except BudgetSpent as error:
                    spent = error
                    break
            for handle in self._ended(running, interrupts):
                request, attempt = running.pop(handle)
                probes = self._backend.probes(handle)
                ended = self._record(self._collect(request, attempt, probes))
                self._budget.settle(request.spec.hardware.gpus, attempt)
                spent = self._budget.end_of(ended) or spent
                interrupted = interrupts is not None and interrupts.pressed
                again = not (interrupted or spent) and self._budget.affords(request.spec)
                if again and self._retries.grant(ended):
                    self._listener.trial_repeated(ended)
                    self._add(request, running)
                    continue
                outcomes[request.spec.trial_id] = ended
                self._listener.trial_ended(ended)
        finally:
            if not self._detached:
                for handle in running:
                    self._backend.cancel(handle)
        if spent:
            raise spent
        return outcomes

    def _add(self, request: TrialRequest, running: dict[str, tuple[TrialRequest, Path]]) -> None:
        """Begin an attempt and add it to those that are running."""
        handle, attempt = self._begin(request, max(1, self._at_once - len(running)))
        running[handle] = request, attempt
        self._listener.trial_begun(request.number, request.spec)

    def _ended(
        self, running: Mapping[str, tuple[TrialRequest, Path]], interrupts: Interrupts | None
    ) -> Iterator[str]:
        """Yield handles of `running` as they end, until the caller has removed all of them."""
        announced = False
        while running:
            self._study.require_held()
            states = {handle: self._backend.poll(handle) for handle in running}
            for handle, (request, _) in running.items():
                for step in self._backend.activities(handle):
                    self._listener.trial_does(request.number, step)
            yield from [handle for handle, state in states.items() if state == "ended"]
            if self._once and running:
                raise ResumableError(
                    f"study.once: {len(running)} of this study's trials wait or run; they go on without this "
                    "process. The same command collects what has ended and submits what is due."
                )
            if interrupts and interrupts.pressed and running and not announced:
                announced = True
                self._backend.announce_interrupt()
            if running:
                time.sleep(self._backend.poll_interval_s)

    def _begin(self, request: TrialRequest, at_once: int) -> tuple[str, Path]:
        """Return handle and folder of an attempt: the one that still runs, or a new one.

        Up to `at_once` attempts, this one included, may run now.
        """
        last = self._study.trial(request.spec.trial_id).last_attempt()
        if last and not read_attempt(last):
            handle = self._backend.resume(last)
            if handle:
                return handle, last
            self._budget.settle(request.spec.hardware.gpus, last)
        attempt = self._prepare(request)
        self._budget.reserve(request.spec, attempt, at_once)
        return self._backend.submit(request.spec, attempt), attempt

    def _known(self, request: TrialRequest, rerun: bool) -> Outcome | None:
        """Return the outcome that answers the request without a new attempt; None where there is none."""
        folder = self._study.trial(request.spec.trial_id)
        outcome = self._uncollected(request) or (None if rerun else folder.read_outcome())
        if outcome and (outcome.status != "failed" or self._retries.is_exhausted(outcome)):
            return outcome
        broken = only_errors(check(request.spec))
        if not broken:
            return None
        reason = "; ".join(f"{f.path}: found {f.found}, expected {f.expected}" for f in broken)
        folder.write_spec(request.spec)
        facts = TrialFacts(request.number, request.source, provenance=request.provenance)
        return self._record(judge_unmeasured("infeasible", request.spec, reason, facts))

    def _uncollected(self, request: TrialRequest) -> Outcome | None:
        """Return the outcome of the last attempt if it ended after the process that submitted it."""
        folder = self._study.trial(request.spec.trial_id)
        ended = [path for path in folder.attempts() if read_attempt(path)]
        if not ended or ended[-1] != folder.last_attempt():
            return None
        outcome = folder.read_outcome()
        if outcome and len(outcome.attempts) >= len(ended):
            return None
        return self._record(self._collect(request, ended[-1]))

    def _prepare(self, request: TrialRequest) -> Path:
        """Write the trial and its plan; return the empty folder of its new attempt.

        The folder of the last attempt is used again where that left no file of its own.
        """
        self._study.require_held()
        folder = self._study.trial(request.spec.trial_id)
        folder.write_spec(request.spec)
        write_plan(render(request.spec, self._facts), folder.plan)
        last = folder.last_attempt()
        unused = last and not {path.name for path in last.iterdir()} - {EARLY_STOP_FILE, LIMIT_FILE}
        attempt = last if last and unused else folder.new_attempt()
        make_folder(attempt.parent)
        make_folder(attempt)
        if request.early_stop:
            write_early_stop(attempt, request.early_stop)
        return attempt

    def _collect(
        self, request: TrialRequest, attempt: Path, probes: Sequence[Probe] | None = None
    ) -> Outcome:
        """Judge `attempt` by its `probes`, measured here where None; count the cost of all attempts."""
        folder = self._study.trial(request.spec.trial_id)
        records = [read_attempt(path) for path in folder.attempts()]
        attempts = [_summary(record, request.spec.hardware.gpus) for record in records if record]
        last = read_attempt(attempt)
        provenance = dict(request.provenance) | self._launched_with(request.spec) | _image(last)
        provenance |= _evidence(attempt)
        facts = TrialFacts(request.number, request.source, attempts, provenance)
        if last is None and not attempt.is_dir():
            raise ResumableError(
                f"{attempt}: is gone; expected the folder of an attempt that has just ended. {MOVE_BACK}"
            )
        if last is None:
            lost = f"{attempt} was lost: it ended without its record"
            return judge_unmeasured("failed", request.spec, lost, facts)
        if last.error:
            wrong = last.cause == "configuration"
            return judge_unmeasured("infeasible" if wrong else "failed", request.spec, last.error, facts)
        probes = measure_attempt(attempt, request.spec) if probes is None else probes
        capacity, accuracy = read_capacity(attempt), read_accuracy(attempt)
        if capacity is None and request.spec.load.mode == "capacity":
            raise ResumableError(
                f"{attempt}: has no capacity.json; expected the result of its search. {MOVE_ATTEMPT}"
            )
        if capacity is None:
            outcome = judge(request.spec, probes, facts, accuracy=accuracy)
            return self._with_model_error(outcome, request.spec)
        threshold = read_early_stop(attempt) if capacity.stopped_early else None
        outcome = judge(request.spec, probes, facts, search=capacity, early_stop=threshold, accuracy=accuracy)
        outcome = self._with_model_error(outcome, request.spec)
        overrides = {"overrides": _at_rate(request.provenance["overrides"], outcome.offered_qps)}
        return outcome.model_copy(update={"provenance": outcome.provenance | overrides})

    def _launched_with(self, spec: TrialSpec) -> dict[str, Any]:
        """Return variables and options that users gave to processes, for the record; none where none ran."""
        if not self._backend.capabilities.real_time:
            return {}
        variables = spec.environments | {"cluster.srun_env": self._facts.srun_env}
        given = {
            "environment": recorded_environments(variables),
            "launch_options": self._facts.launch_options,
        }
        return {name: value for name, value in given.items() if value}

    def _with_model_error(self, outcome: Outcome, spec: TrialSpec) -> Outcome:
        """Return a measured outcome with the model error of the simulator, where that is known."""
        calibration = self._facts.calibration
        if self._backend.capabilities.real_time or calibration is None or calibration.has_tables:
            return outcome
        kind = outcome.bottleneck.kind if outcome.bottleneck else None
        return outcome.model_copy(update={"model_error": estimate_model_error(spec, calibration, kind)})

    def _record(self, outcome: Outcome) -> Outcome:
        """Write the outcome and note that it is new.

        One that GPUs were spent on outlives a loss of power; the simulator finds its own again.
        """
        self._study.require_held()
        folder = self._study.trial(outcome.trial_id)
        folder.write_outcome(outcome, durable=self._backend.capabilities.real_time)
        self.recorded.add(outcome.trial_id)
        return outcome


def _distinct(requests: Iterable[TrialRequest], trial_ids: dict[int, str]) -> Iterator[TrialRequest]:
    """Yield the first request of each configuration; enter all of them in `trial_ids` by number."""
    seen: set[str] = set()
    for request in requests:
        trial_ids[request.number] = request.spec.trial_id
        if request.spec.trial_id not in seen:
            seen.add(request.spec.trial_id)
            yield request


def _image(last: AttemptRecord | None) -> dict[str, Any]:
    """Return the digest of the image that the attempt ran in, for the record; nothing where there is none."""
    return {"image_sha256": last.image_sha256} if last and last.image_sha256 else {}


def _evidence(attempt: Path) -> dict[str, Any]:
    """Return what the nodes of the attempt found, for the record; nothing where none reported."""
    evidence = read_evidence(attempt)
    return {} if evidence is None else {"evidence": evidence.model_dump(mode="json")}


def _at_rate(overrides: Sequence[str], target_qps: float) -> list[str]:
    """Return the overrides of one run at `target_qps`, for a trial that searched for its capacity."""
    searched = ("load.mode=", "load.target_qps=", "load.resolution=", "load.rate_range_qps=")
    return [word for word in overrides if not word.startswith(searched)] + [f"load.target_qps={target_qps!r}"]


def _summary(record: AttemptRecord, gpus: int) -> Attempt:
    """Return the attempt as it stands in the outcome, with its cost in GPU-hours."""
    result = "measured"
    if record.error:
        result = "infeasible" if record.cause == "configuration" else "failed"
    return Attempt.model_validate(
        {
            "started_at": record.started_at,
            "ended_at": record.ended_at,
            "gpu_hours": gpus * record.occupied_s / 3600,
            "class": result,
            "cause": record.cause,
            "evidence": record.evidence,
            "phases": record.phases,
        }
    )
