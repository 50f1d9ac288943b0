"""Declare each backend: what it can do, what it needs, and the texts that name it in reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

BackendName = Literal["sim", "local", "slurm"]
"""Name of a backend, as the setting `cluster.kind` and the records of studies spell it."""


@dataclass(frozen=True)
class Capabilities:
    """Declare what a backend can do and needs. Callers branch on these, never on the name of the backend.

    Attributes
    ----------
    detached
        Attempts go on when this process ends; another process finds them again, and may list and cancel them.
        Required by study.once, action=cancel and study.trials_per_job.
    real_time
        An attempt is a deployment of real processes on the wall clock, with logs, and takes minutes to start.
        Otherwise it is computed, and its times are those of a model.
    needs_calibration
        Attempts cannot run without cluster.calibration, which action=calibrate fits.
    default_parallel
        Number of trials at once where study.parallel is null and the search does not learn.
    """

    detached: bool
    real_time: bool
    needs_calibration: bool
    default_parallel: int


class BackendLabel(NamedTuple):
    """Hold the texts that name a backend.

    `kind` is a CSS class of the page; `name` is for a line of text; `title` and `meaning` are for the head of
    the page; `cost` completes the sentence "N GPU-hours ...".
    """

    kind: str
    name: str
    title: str
    meaning: str
    cost: str


@dataclass(frozen=True)
class BackendDeclaration:
    """Hold what a backend declares about itself.

    Attributes
    ----------
    capabilities
        What the backend can do and needs.
    label
        The texts that name it where the engine computes tokens.
    mock_label
        The texts that name it where the engine computes none, so that nobody takes a model's figure for a
        measurement.
    no_logs
        Why an attempt has no logs, for a message; None where attempts have logs.
    """

    capabilities: Capabilities
    label: BackendLabel
    mock_label: BackendLabel
    no_logs: str | None = None


SIMULATOR = Capabilities(detached=False, real_time=False, needs_calibration=True, default_parallel=16)
"""Simulated trials take turns on the cores of this machine, so many may be asked for at once."""

LOCAL = Capabilities(detached=False, real_time=True, needs_calibration=False, default_parallel=1)
"""One deployment at a time runs on this machine, and ends with this process."""

SLURM = Capabilities(detached=True, real_time=True, needs_calibration=False, default_parallel=1)
"""Each trial occupies a rack, as a job that goes on without this process."""

_SIMULATED = BackendLabel(
    "sim",
    "simulator",
    "Simulated",
    "No GPU ran. Every figure on this page comes from a simulator, a model of the hardware; no figure here "
    "is a measurement of it.",
    "that the simulated trials would have cost",
)
_MOCKED = BackendLabel(
    "mock",
    "mock engines on this machine",
    "Mock engines",
    "No GPU ran. LoadGen drove real Dynamo in real time on one machine, but its engines computed nothing: "
    "the time of every step comes from a model of the hardware, so no figure here is a measurement of it.",
    "that these trials would have cost on GPUs",
)
_MOCKED_ON_SLURM = _MOCKED._replace(
    name="mock engines on Slurm",
    meaning="No GPU ran. LoadGen drove real Dynamo in real time on the nodes of a Slurm cluster, but its "
    "engines computed nothing: the time of every step comes from a model of the hardware, so no figure here "
    "is a measurement of it.",
)
_MEASURED = BackendLabel(
    "local",
    "this machine",
    "Measured on this machine",
    "LoadGen measured every figure on this page on the GPUs of one machine.",
    "spent",
)
_MEASURED_ON_SLURM = BackendLabel(
    "slurm",
    "Slurm",
    "Measured on Slurm",
    "LoadGen measured every figure on this page on the allocated GPUs of a Slurm cluster.",
    "spent",
)

BACKEND_DECLARATIONS: Mapping[BackendName, BackendDeclaration] = {
    "sim": BackendDeclaration(
        SIMULATOR, _SIMULATED, mock_label=_SIMULATED, no_logs="the simulated rack starts no process"
    ),
    "local": BackendDeclaration(LOCAL, _MEASURED, mock_label=_MOCKED),
    "slurm": BackendDeclaration(SLURM, _MEASURED_ON_SLURM, mock_label=_MOCKED_ON_SLURM),
}
"""What each backend declares. tune/backends/registry.py says how each is built and checked."""
