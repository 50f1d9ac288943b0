"""A batch of trials on a place: what is recorded is reused, the rest runs, every outcome is recorded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.clusters.place import Place
from tune.deploy.plan import write_plan
from tune.mock.plan import render_plan
from tune.results.files import make_folder
from tune.results.folder import StudyFolder, read_attempt
from tune.results.judge import judge, judge_failed, judge_infeasible
from tune.results.measure import measure
from tune.results.outcome import Attempt, Outcome
from tune.results.record import AttemptRecord
from tune.spec.cluster import ClusterFacts
from tune.spec.findings import errors
from tune.spec.rules import check
from tune.spec.trial import TrialSpec

_POLL_S = 0.01


@dataclass(frozen=True)
class Job:
    """Trial `number`; `source` is "incumbent", a sampler or "command". `provenance` goes on record."""

    number: int
    source: str
    spec: TrialSpec
    provenance: Mapping[str, Any]


class Batch:
    """Runs jobs on `place` and records outcomes in `study`; `recorded` names the trials that were new."""

    def __init__(self, study: StudyFolder, facts: ClusterFacts, place: Place) -> None:
        self._study = study
        self._facts = facts
        self._place = place
        self.recorded: set[str] = set()

    def run(self, jobs: Sequence[Job], rerun: bool = False) -> dict[int, Outcome]:
        """Outcomes by trial number. Jobs that are one configuration share one outcome.

        A measured or infeasible outcome on record is reused unless `rerun`; a failed one is tried again.
        Interrupted, it cancels what runs; what is recorded stays.
        """
        distinct = {job.spec.trial_id: job for job in reversed(jobs)}
        outcomes: dict[str, Outcome] = {}
        running: dict[str, tuple[Job, Path]] = {}
        try:
            for trial_id, job in reversed(distinct.items()):
                known = self._known(job, rerun)
                if known:
                    outcomes[trial_id] = known
                else:
                    attempt = self._prepare(job)
                    running[self._place.submit(job.spec, attempt)] = job, attempt
            while running:
                for handle in [h for h in running if self._place.poll(h) == "ended"]:
                    job, attempt = running.pop(handle)
                    outcomes[job.spec.trial_id] = self._record(self._collect(job, attempt))
                time.sleep(_POLL_S if running else 0)
        finally:
            for handle in running:
                self._place.cancel(handle)
        return {job.number: outcomes[job.spec.trial_id] for job in jobs}

    def _known(self, job: Job, rerun: bool) -> Outcome | None:
        folder = self._study.trial(job.spec.trial_id)
        recorded = None if rerun else folder.read_outcome()
        last = folder.last_attempt()
        if recorded is None and not rerun and last and read_attempt(last):
            recorded = self._record(self._collect(job, last))
        if recorded and recorded.status != "failed":
            return recorded
        broken = errors(check(job.spec))
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

    def _prepare(self, job: Job) -> Path:
        """Write what the trial is and would launch; the folder of its new attempt, made and empty."""
        folder = self._study.trial(job.spec.trial_id)
        folder.write_spec(job.spec)
        write_plan(render_plan(job.spec, self._facts), folder.plan)
        attempt = folder.new_attempt()
        make_folder(attempt)
        return attempt

    def _collect(self, job: Job, attempt: Path) -> Outcome:
        """Judge `attempt` by what it left in its folder, and count what all attempts cost."""
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
            judge_broken = judge_infeasible if last.cause == "point" else judge_failed
            return judge_broken(job.spec, reason=last.error, **identity)
        probes = [
            measure(probe, job.spec, str(probe.relative_to(folder.root)))
            for probe in sorted(attempt.glob("probe-*"))
        ]
        return judge(job.spec, probes, **identity)

    def _record(self, outcome: Outcome) -> Outcome:
        self._study.trial(outcome.trial_id).write_outcome(outcome)
        self.recorded.add(outcome.trial_id)
        return outcome


def _count(record: AttemptRecord, gpus: int) -> Attempt:
    verdict = "measured"
    if record.error:
        verdict = "infeasible" if record.cause == "point" else "failed"
    return Attempt.model_validate(
        {
            "started_at": record.started_at,
            "ended_at": record.ended_at,
            "gpu_hours": gpus * record.held_s / 3600,
            "class": verdict,
        }
    )
