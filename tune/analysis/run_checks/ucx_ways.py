"""Read which ways between GPUs UCX may take, from UCX_TLS, and which it took, from its log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_VERBS = ("", "_x", "_v", "_verbs", "_mlx5")
WAYS: Mapping[str, frozenset[str]] = {
    "NVLink": frozenset({"cuda_ipc", "cuda"}),
    "RDMA": frozenset({"ib", "srd", *(kind + form for kind in ("rc", "dc", "ud") for form in _VERBS)}),
    "TCP": frozenset({"tcp"}),
}
"""Ways between GPUs, and the names by which UCX_TLS allows them and UCX's log calls them. Source: UCX,
docs/source/faq.md, "List of main transports and aliases"; for srd src/uct/ib/efa."""

FROM_GPU_TO_GPU = frozenset({"NVLink", "RDMA"})
"""Ways that do not lead through the memory of the host."""

_WHOLE = {"NVLink": {"cuda_ipc", "cuda"}, "RDMA": {"ib"}, "TCP": {"tcp"}}
"""Names that, behind a ^, take a whole way from UCX."""

_LANES = re.compile(rb"UCX  INFO\s+\S+ (?:intra|inter)-node cfg#\d+ (.*)")
_TRANSPORT = re.compile(rb"([a-z][a-z0-9_]*)/[a-z0-9]")
"""What UCX 1.21.0 writes with UCX_LOG_LEVEL=info when it meets a peer: its lanes as TRANSPORT/DEVICE."""

_READ_BYTES = 16_000_000
"""Beginning of a log that is read: peers meet when the deployment is warmed up. Chosen here."""


def allowed_ways(ucx_tls: str | None) -> tuple[str, ...]:
    """Return the ways that UCX may take under a value of UCX_TLS, None where it is not set."""
    text = (ucx_tls or "all").replace(" ", "")
    if text.startswith("^"):
        excluded = set(text[1:].split(","))
        return tuple(way for way, names in _WHOLE.items() if not names & excluded)
    listed = {word.partition(":")[0] for word in text.split(",")}
    return tuple(way for way, names in WAYS.items() if "all" in listed or names & listed)


@dataclass(frozen=True)
class UcxLanes:
    """Hold the ways of a connection that UCX made to another process, and the line of the log that shows it.

    Among several the first with a way from GPU to GPU counts: MPI's own UCX writes such lines, too.
    """

    ways: tuple[str, ...]
    line: int


def read_lanes(log: Path) -> UcxLanes | None:
    """Return what the log of a worker says of its connections; None where it says nothing."""
    with log.open("rb") as file:
        lines = file.read(_READ_BYTES).split(b"\n")
    return _chosen(
        UcxLanes(_ways(found[1]), number)
        for number, line in enumerate(lines, start=1)
        if b"cfg#" in line and (found := _LANES.search(line))
    )


def _ways(lanes: bytes) -> tuple[str, ...]:
    """Return the ways among the lanes of one connection."""
    names = {name.decode() for name in _TRANSPORT.findall(lanes)}
    return tuple(way for way, known in WAYS.items() if names & known)


def _chosen(connections: Iterable[UcxLanes]) -> UcxLanes | None:
    """Return the first connection from GPU to GPU, else the first one."""
    known = list(connections)
    direct = (lanes for lanes in known if FROM_GPU_TO_GPU & set(lanes.ways))
    return next(direct, known[0] if known else None)
