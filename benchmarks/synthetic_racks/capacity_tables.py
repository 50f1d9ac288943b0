"""Read and write the true capacities of a set of racks: one checked file a set.

data/synthetic_racks/SET.npz holds, for every rack of a set and every configuration of space.py, the capacity
and the capacities of both pools in thousandths of a query/s, and a summary of each rack. SHA256SUMS beside
the files is verified at every read (`sha256sum --check SHA256SUMS` does so too).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from synthetic_racks.space import CONFIGURATIONS, SEED
from tune.core.arrays import IntArray

DATA = Path(__file__).parents[1] / "data" / "synthetic_racks"
SETS = ("development", "held_out", "prior")
EASY_FRAC = 0.05
CRASHED = -1
"""Stands in place of a capacity in the files."""


class TrueCapacities(NamedTuple):
    """Hold the capacities of one rack by configuration.

    `capacity_qps` is None where the configuration crashes; `pool_capacity_qps` is that of prefill and decode,
    also where it crashes.
    """

    capacity_qps: Sequence[float | None]
    pool_capacity_qps: Sequence[tuple[float, float]]


class Summary(NamedTuple):
    """Describe a rack. Fractions are those of its best capacity, 0 where the configuration crashes."""

    number: int
    seed: int
    best: str
    best_qps: float
    prior_pick_frac: float
    seed_configuration_frac: float

    @property
    def is_easy(self) -> bool:
        """Return whether the prior's pick or the seed's configuration is within EASY_FRAC of the best."""
        return max(self.prior_pick_frac, self.seed_configuration_frac) >= 1 - EASY_FRAC


@dataclass(frozen=True)
class RackSet:
    """Hold the racks of a set by number; the prior's only rack has no summary."""

    capacities: Mapping[int, TrueCapacities] = field(default_factory=dict)
    summaries: Mapping[int, Summary] = field(default_factory=dict)


@lru_cache
def read_set(name: str, folder: Path = DATA) -> RackSet:
    """Return the set `name`, empty if it has no file yet.

    Raises ValueError for a file of another checksum, and for one of other configurations than space.py has.
    """
    path = folder / f"{name}.npz"
    if not path.exists():
        return RackSet()
    if read_checksums(folder).get(path.name) != checksum(path):
        raise ValueError(f"{path}: expected the checksum in {folder / 'SHA256SUMS'}; check it out anew")
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    if arrays["configurations"].tolist() != [each.label for each in CONFIGURATIONS]:
        raise ValueError(f"{path}: other configurations than synthetic_racks/space.py has; make it anew")
    rates = (arrays["capacity_thousandths"], arrays["prefill_thousandths"], arrays["decode_thousandths"])
    rows = zip(arrays["numbers"].tolist(), *rates, strict=True)
    capacities = {number: _capacities(*each) for number, *each in rows}
    summary = zip(*(arrays[f"summary_{name}"].tolist() for name in Summary._fields), strict=True)
    return RackSet(capacities, {row[0]: Summary(*row) for row in summary})


def write_set(name: str, racks: RackSet, folder: Path = DATA) -> None:
    """Write the set `name` and its checksum, each renamed into place."""
    numbers = sorted(racks.capacities)
    tables = [racks.capacities[number] for number in numbers]
    summaries = [racks.summaries[number] for number in sorted(racks.summaries)]
    arrays = {
        "configurations": np.array([each.label for each in CONFIGURATIONS]),
        "numbers": np.array(numbers),
        "capacity_thousandths": np.array([[_thousandths(qps) for qps in t.capacity_qps] for t in tables]),
        "prefill_thousandths": np.array([[_thousandths(p) for p, _ in t.pool_capacity_qps] for t in tables]),
        "decode_thousandths": np.array([[_thousandths(d) for _, d in t.pool_capacity_qps] for t in tables]),
    }
    arrays |= {
        f"summary_{name}": np.array([getattr(row, name) for row in summaries]) for name in Summary._fields
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    part.replace(path)
    lines = (f"{digest}  {file}\n" for file, digest in sorted(
        (read_checksums(folder) | {path.name: checksum(path)}).items()))  # fmt: skip
    sums = folder / "SHA256SUMS.part"
    sums.write_text("".join(lines))
    sums.replace(folder / "SHA256SUMS")
    read_set.cache_clear()


def add_rack(name: str, number: int, capacities: TrueCapacities, summary: Summary | None) -> None:
    """Add a rack to the set `name`, or replace it; other processes wait meanwhile."""
    with _locked():
        read_set.cache_clear()
        racks = read_set(name)
        summaries = dict(racks.summaries) | ({number: summary} if summary else {})
        write_set(name, RackSet(dict(racks.capacities) | {number: capacities}, summaries))


def read_prior() -> Sequence[float | None]:
    """Return the capacities that the default calibration predicts, by configuration."""
    return read_set("prior").capacities[0].capacity_qps


def summarise(number: int, seed: int, capacity_qps: Sequence[float | None]) -> Summary:
    """Summarise the rack of `seed` by its capacities."""
    known = [qps or 0.0 for qps in capacity_qps]
    best = int(np.argmax(known))
    pick = int(np.argmax([qps or 0.0 for qps in read_prior()]))
    fractions = (round(known[index] / known[best], 4) for index in (pick, SEED))
    return Summary(number, seed, CONFIGURATIONS[best].label, round(known[best], 3), *fractions)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_checksums(folder: Path = DATA) -> dict[str, str]:
    """Return the committed checksums by file name."""
    path = folder / "SHA256SUMS"
    lines = path.read_text().splitlines() if path.exists() else []
    return {name: digest for digest, name in (line.split() for line in lines)}


@contextmanager
def _locked() -> Iterator[None]:
    DATA.mkdir(parents=True, exist_ok=True)
    folder = os.open(DATA, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _thousandths(qps: float | None) -> int:
    return CRASHED if qps is None else round(1000 * qps)


def _capacities(capacity: IntArray, prefill: IntArray, decode: IntArray) -> TrueCapacities:
    """Return the rates of one rack. A whole number over 1000 is the double of its three decimals."""
    rates = [None if value == CRASHED else value / 1000 for value in capacity.tolist()]
    pools = ((value / 1000 for value in pool.tolist()) for pool in (prefill, decode))
    return TrueCapacities(rates, list(zip(*pools, strict=True)))
