"""Declare what each backend can do and needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """Declare what a backend can do and needs. Callers branch on these, never on the kind of the backend.

    Attributes
    ----------
    detached
        Attempts go on when this process ends; another process finds them again, and may list and cancel them.
        Required by study.once, action=cancel and study.trials_per_job.
    real_time
        An attempt is a deployment of real processes on the wall clock, with logs, and takes minutes to start.
        Otherwise it is computed, and its times are those of a model.
    needs_calibration
        Attempts cannot run without cluster.calibration.
    default_parallel
        Number of trials at once where study.parallel is null.
    """

    detached: bool
    real_time: bool
    needs_calibration: bool
    default_parallel: int


SIMULATOR = Capabilities(detached=False, real_time=False, needs_calibration=True, default_parallel=16)
"""Simulated trials take turns on the cores of this machine, so many may be asked for at once."""

LOCAL = Capabilities(detached=False, real_time=True, needs_calibration=False, default_parallel=1)
"""One deployment at a time runs on this machine, and ends with this process."""

SLURM = Capabilities(detached=True, real_time=True, needs_calibration=False, default_parallel=1)
"""Each trial occupies a rack, as a job that goes on without this process."""
