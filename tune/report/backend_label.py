"""Where trials ran, in the words of page and terminal: no reader may take a model's figure for a GPU's."""

from __future__ import annotations

from typing import NamedTuple

from tune.engines.registry import ENGINES


class BackendLabel(NamedTuple):
    """`kind`: a class of the page's style; `name`: for a line of text; `title` and `meaning`: for the head of
    the page; `cost`: what the GPU-hours beside it are."""

    kind: str
    name: str
    title: str
    meaning: str
    cost: str


_SIMULATED = BackendLabel(
    "sim",
    "simulated rack",
    "Simulated",
    "No GPU ran. Every figure on this page comes from the simulated rack, a model of the hardware, "
    "and stands for no measurement on it.",
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
    "Every figure on this page was measured by LoadGen on the GPUs of one machine.",
    "spent",
)
_SLURM = BackendLabel(
    "slurm",
    "Slurm",
    "Measured on Slurm",
    "Every figure on this page was measured by LoadGen on the allocated GPUs of a Slurm cluster.",
    "spent",
)


def backend_label(kind: str, engine: str) -> BackendLabel:
    """Return the words for a cluster of this kind (sim, local, slurm) and the engine of this name."""
    if kind != "sim" and engine in ENGINES and not ENGINES[engine].computes_tokens:
        return _MOCKED if kind == "local" else _MOCKED_ON_SLURM
    return {"sim": _SIMULATED, "local": _LOCAL, "slurm": _SLURM}[kind]
