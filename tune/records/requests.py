"""`requests.npz`: what happened to every request of one probe, one array a fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import FloatArray, IntArray
from tune.core.files import open_atomic
from tune.errors import ResumableError


@dataclass(frozen=True, eq=False)
class Stages:
    """Where the time of each request went; int64 nanoseconds on the clock of `RequestLog`, shape (n,).

    `prefill_queued_ns`: when the front end had passed the request on; `first_made_ns`: when the decode worker
    had made its first token, before the front end passed that on. None where not recorded.
    """

    prefill_start_ns: IntArray
    prefill_done_ns: IntArray
    kv_arrived_ns: IntArray
    decode_start_ns: IntArray
    prefill_queued_ns: IntArray | None = None
    first_made_ns: IntArray | None = None


@dataclass(frozen=True, eq=False)
class PoolUse:
    """How full each worker was between the first arrival and the last: one figure a worker."""

    prefill_busy_frac: FloatArray
    decode_batch_mean: FloatArray
    decode_kv_used_frac: FloatArray


@dataclass(frozen=True, eq=False)
class RequestLog:
    """Per-request record in order of arrival; all arrays have shape (n,).

    Times are int64 nanoseconds since the start of the test, -1 where the event never came. `error` is an
    empty string for an answered request. Workers are numbered within their pool, -1 where unknown.
    `began_at_s`: the start of the test in seconds since the epoch, None where no clock told.
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
    began_at_s: float | None = None

    def __len__(self) -> int:
        return len(self.scheduled_ns)


_APART = ("stages", "pools", "began_at_s")
"""What of a record is not one figure a request."""


def write_requests(path: Path, log: RequestLog) -> None:
    """Write `log` to `path` (an .npz archive), through a temporary name. Raises ConfigurationError if that fails."""
    arrays = {f.name: getattr(log, f.name) for f in fields(log) if f.name not in _APART}
    arrays["error"] = _narrow(log.error)
    if log.began_at_s is not None:
        arrays["began_at_s"] = log.began_at_s
    for part in (log.stages, log.pools):
        if part is not None:
            arrays |= {
                f.name: getattr(part, f.name) for f in fields(part) if getattr(part, f.name) is not None
            }
    with open_atomic(path) as file:
        np.savez(file, **arrays)


def read_requests(path: Path) -> RequestLog:
    """Read what `write_requests` wrote. Raises ResumableError when it is missing, torn or incomplete."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        log = RequestLog(
            **{f.name: arrays[f.name] for f in fields(RequestLog) if f.name not in _APART},
            stages=_part(Stages, arrays),
            pools=_part(PoolUse, arrays),
            began_at_s=float(arrays["began_at_s"]) if "began_at_s" in arrays else None,
        )
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise ResumableError(_unreadable(path, str(error))) from error
    per_request = [getattr(log, f.name) for f in fields(log) if f.name not in _APART]
    per_request += [getattr(log.stages, f.name) for f in fields(Stages)] if log.stages else []
    if any(array is not None and array.shape != (len(log),) for array in per_request):
        raise ResumableError(_unreadable(path, "its arrays differ in length"))
    return log


Part = TypeVar("Part", Stages, PoolUse)


def _part(kind: type[Part], arrays: Mapping[str, Any]) -> Part | None:
    """The arrays of `kind`, None where its first is absent; those with a default may be absent alone."""
    names = [f.name for f in fields(kind) if f.default is MISSING or f.name in arrays]
    return kind(**{name: arrays[name] for name in names}) if names[0] in arrays else None


def _unreadable(path: Path, found: str) -> str:
    return (
        f"{path}: not a readable request record ({found}); expected the .npz that a probe writes. "
        "Run the trial again with rerun=true."
    )


def _narrow(texts: NDArray[np.str_]) -> NDArray[np.str_]:
    """`texts` no wider than the longest of them: NumPy pads every text of an array to one width."""
    width = int(np.strings.str_len(texts).max(initial=1))
    return texts.astype(f"<U{width}")


_NOT_BY_REQUEST = ("stages", "pools", "began_at_s")


def first_requests(log: RequestLog, queries: int) -> RequestLog:
    """Return the first `queries` requests of `log`, or all where it has fewer.

    Pool figures are left out: they are means over the whole run.
    """
    stages = None if log.stages is None else replace(log.stages, **_first(log.stages, queries))
    return replace(log, **_first(log, queries), stages=stages, pools=None)


def _first(record: RequestLog | Stages, queries: int) -> dict[str, Any]:
    arrays = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _NOT_BY_REQUEST}
    return {name: None if array is None else array[:queries] for name, array in arrays.items()}
