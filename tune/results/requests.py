"""`requests.npz`: what happened to every request of one probe, one array a fact."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tune.errors import RunAgain

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stages:
    """Where the time of each request went; int64 nanoseconds on the clock of `RequestLog`, shape (n,)."""

    prefill_start_ns: IntArray
    prefill_done_ns: IntArray
    kv_arrived_ns: IntArray
    decode_start_ns: IntArray


@dataclass(frozen=True, eq=False)
class PoolUse:
    """How full each worker was between the first arrival and the last: one figure a worker, 0..1 or a batch."""

    prefill_busy_frac: FloatArray
    decode_batch_mean: FloatArray
    decode_kv_used_frac: FloatArray


@dataclass(frozen=True, eq=False)
class RequestLog:
    """Per-request record in order of arrival; all arrays have shape (n,).

    Times are int64 nanoseconds since the start of the test, -1 where the event never came. `error` is an
    empty string for an answered request. Workers are numbered within their pool, -1 where unknown.
    """

    scheduled_ns: IntArray
    first_token_ns: IntArray
    done_ns: IntArray
    input_tokens: IntArray
    output_tokens: IntArray
    prefill_worker: IntArray
    decode_worker: IntArray
    error: NDArray[np.str_]
    stages: Stages | None = None
    pools: PoolUse | None = None

    def __len__(self) -> int:
        return len(self.scheduled_ns)


def write_requests(path: Path, log: RequestLog) -> None:
    """Write `log` to `path` (an .npz archive), through a temporary name."""
    arrays = {f.name: getattr(log, f.name) for f in fields(log) if f.name not in ("stages", "pools")}
    for part in (log.stages, log.pools):
        if part is not None:
            arrays |= {f.name: getattr(part, f.name) for f in fields(part)}
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    temporary.replace(path)


def read_requests(path: Path) -> RequestLog:
    """Read what `write_requests` wrote. Raises RunAgain when the file is missing, cut short or lacks arrays."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        base = {f.name: arrays[f.name] for f in fields(RequestLog) if f.name not in ("stages", "pools")}
        parts = {
            name: kind(**{f.name: arrays[f.name] for f in fields(kind)})
            for name, kind in (("stages", Stages), ("pools", PoolUse))
            if fields(kind)[0].name in arrays
        }
    except (OSError, EOFError, BadZipFile, ValueError, KeyError) as error:
        raise RunAgain(
            f"{path}: not a readable request record ({error}); expected the .npz that a probe writes. "
            "Run the trial again with rerun=true."
        ) from error
    return RequestLog(**base, **parts)
