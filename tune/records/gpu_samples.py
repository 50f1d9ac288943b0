"""Define `gpus.json`: what the GPUs of all nodes state before and after a probe.

A node prints one line for each GPU: `gpu HOST INDEX, FIGURE, ...`, the figures in the order of FIELDS. The
driver counts the time for which it held clocks down, so the difference of two samples is that time, whatever
the clocks were at either moment.
Source: nvidia-smi --help-query-gpu of driver 580.159.04, which has all fields. In 12 s of dense products on
an H200 `sw_power_cap` grew by 12.3 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel

GPUS_FILE = "gpus.json"

_POWER_FIELDS = ("power.limit", "power.default_limit")
SLOWDOWNS = {
    "hw_thermal_slowdown": "heat, in hardware",
    "sw_thermal_slowdown": "heat, by the driver",
    "hw_power_brake_slowdown": "the power brake of the node",
    "sw_power_cap": "its power limit",
}
"""Reasons for which a driver holds clocks down, by their names in nvidia-smi."""

FIELDS = ("index", *_POWER_FIELDS, *(f"clocks_event_reasons_counters.{name}" for name in SLOWDOWNS))
"""Fields of nvidia-smi --query-gpu, powers in W and counters in us."""

_LINE = "gpu "


class GpuSample(FrozenModel):
    """Hold what one GPU states: its power limits in W, and the seconds of each reason of SLOWDOWNS."""

    index: int
    power_limit_w: float
    default_power_limit_w: float
    slowed_s: Mapping[str, float]


NodeSamples = Mapping[str, tuple[GpuSample, ...]]
"""Samples of the GPUs of each node, by host."""


class GpuSamples(FrozenModel):
    """Hold `probe-N/gpus.json`. `missing` says by host why a node has no sample."""

    before: NodeSamples
    after: NodeSamples
    missing: Mapping[str, str]


def parse_gpu_lines(text: str, hosts: Iterable[str]) -> tuple[NodeSamples, dict[str, str]]:
    """Return the samples that nodes printed into `text`, and by host why the rest of `hosts` has none."""
    samples: dict[str, list[GpuSample]] = {}
    said: dict[str, str] = {}
    for line in text.splitlines():
        marked, _, rest = line.partition(_LINE)
        host, _, figures = rest.partition(" ")
        if marked.strip() or not rest:
            continue
        try:
            samples.setdefault(host, []).append(_sample([float(part) for part in figures.split(",")]))
        except ValueError:
            said.setdefault(host, figures.strip())
    named = list(dict.fromkeys(hosts))
    if len(named) == 1:  # all node indices are one machine, however that calls itself
        samples = {named[0]: [sample for found in samples.values() for sample in found]} if samples else {}
        said = {named[0]: next(iter(said.values()))} if said else {}
    known = {host: tuple(samples[host]) for host in named if host in samples and host not in said}
    return known, {host: said.get(host, "it printed nothing") for host in named if host not in known}


def _sample(figures: list[float]) -> GpuSample:
    """Return the sample of one line. Raises ValueError for another number of figures."""
    index, limit_w, default_w, *counters_us = figures
    slowed_s = {name: us * 1e-6 for name, us in zip(SLOWDOWNS, counters_us, strict=True)}
    return GpuSample(
        index=int(index), power_limit_w=limit_w, default_power_limit_w=default_w, slowed_s=slowed_s
    )


def write_gpu_samples(probe: Path, samples: GpuSamples) -> None:
    """Write gpus.json into the folder `probe`; raise ConfigurationError where that fails."""
    write_text(probe / GPUS_FILE, samples.model_dump_json(indent=1) + "\n")


def read_gpu_samples(probe: Path) -> GpuSamples | None:
    """Return the samples of the probe, None where there are none; raise ResumableError for a torn file."""
    return read_record(probe / GPUS_FILE, GpuSamples)
