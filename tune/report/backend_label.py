"""Name the backend that ran the trials, so that nobody takes a model's figure for a measurement."""

from __future__ import annotations

from typing import NamedTuple

from tune.engines.registry import ENGINES


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
_LOCAL = BackendLabel(
    "local",
    "this machine",
    "Measured on this machine",
    "LoadGen measured every figure on this page on the GPUs of one machine.",
    "spent",
)
_SLURM = BackendLabel(
    "slurm",
    "Slurm",
    "Measured on Slurm",
    "LoadGen measured every figure on this page on the allocated GPUs of a Slurm cluster.",
    "spent",
)


def backend_label(kind: str, engine: str) -> BackendLabel:
    """Return the texts for a backend (sim, local or slurm) that runs the engine of this name."""
    if kind != "sim" and engine in ENGINES and not ENGINES[engine].computes_tokens:
        return _MOCKED if kind == "local" else _MOCKED_ON_SLURM
    return {"sim": _SIMULATED, "local": _LOCAL, "slurm": _SLURM}[kind]
