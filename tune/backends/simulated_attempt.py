"""Simulate one attempt: its probes, its record and its measurement."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tune.analysis.measure import measure_attempt
from tune.backends.activity import Activity
from tune.backends.simulated_probes import simulate_probes
from tune.errors import TuneError
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
        The attempt's folder.
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
    started = datetime.now(UTC)
    phases, error = Phases(), None
    try:
        phases = simulate_probes(spec, calibration, attempt, report, threads=threads)
    except TuneError as expected:
        error = str(expected)
    except Exception:  # an error in the simulator fails its trial, with its trace, not the whole study
        error = traceback.format_exc()
    held_s = phases.bring_up_s + phases.probes_s + phases.drain_s
    write_attempt(
        attempt,
        AttemptRecord(
            started_at=started.isoformat(),
            ended_at=(started + timedelta(seconds=held_s)).isoformat(),
            held_s=held_s,
            error=error,
            cause="infrastructure" if error else None,
            phases=phases,
        ),
    )
    return [] if error else measure_attempt(attempt, spec)
