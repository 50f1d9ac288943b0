"""Simulate one attempt: its probes, its record and its measurement."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tune.analysis.measure import measure_attempt
from tune.backends.activity import Activity
from tune.backends.simulated_probes import simulate_probes
from tune.core.files import make_folder
from tune.errors import ResumableError, TuneError
from tune.orchestrator.failures import AttemptFailed, explained
from tune.records.attempt_limit import read_limit
from tune.records.attempt_record import AttemptRecord, Phases
from tune.records.folders import write_attempt
from tune.records.outcome import Probe
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


def simulate_attempt(
    spec: TrialSpec,
    calibration: Calibration,
    attempt: Path,
    report: Callable[[Activity], None],
    *,
    threads: int = 1,
) -> list[Probe]:
    """Simulate one attempt, write the records of a deployment into the folder `attempt`, and measure them.

    Parameters
    ----------
    spec, calibration
        The trial, and the calibration of the simulated rack.
    attempt
        The attempt's folder; it is made where it is missing.
    report
        Receives each step as it begins or ends.
    threads
        Number of threads that simulate; no result depends on it.

    Returns
    -------
    list[Probe]
        The measured probes; [] where the simulation failed, with the error on record.

    Notes
    -----
    Times on record are those that a real deployment would hold its GPUs for: bring-up and run, by the
    simulated clock.
    """
    make_folder(attempt)
    started = datetime.now(UTC)
    phases, failure = Phases(), None
    try:
        phases = simulate_probes(spec, calibration, attempt, report, threads=threads)
    except TuneError as error:
        failure = explained(error)
    except Exception:  # an error in the simulator fails its trial, with its trace, not the whole study
        failure = AttemptFailed(traceback.format_exc())
    occupied_s, limit = phases.bring_up_s + phases.probes_s + phases.drain_s, read_limit(attempt)
    if limit and occupied_s > limit.occupied_s:
        occupied_s, failure = limit.occupied_s, explained(ResumableError(limit.reason))
    write_attempt(
        attempt,
        AttemptRecord(
            started_at=started.isoformat(),
            ended_at=(started + timedelta(seconds=occupied_s)).isoformat(),
            occupied_s=occupied_s,
            error=str(failure) if failure else None,
            cause=failure.cause if failure else None,
            evidence=failure.evidence if failure else None,
            phases=phases,
        ),
    )
    return [] if failure else measure_attempt(attempt, spec)
