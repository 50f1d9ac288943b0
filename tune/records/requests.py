"""Read and write `requests.npz`: what happened to every request of one probe, one array per fact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import FloatArray, IntArray
from tune.core.files import MOVE_ATTEMPT, open_atomic, regular_file
from tune.errors import ResumableError


@dataclass(frozen=True, eq=False)
class Stages:
    """Hold when each request entered its stages: int64 nanoseconds on the clock of `RequestLog`, shape (n,).

    `prefill_queued_ns` is when the frontend had passed the request on. `first_made_ns` is when the decode
    worker had made its first token, before the frontend passed that on. Both are None where not recorded.
    """

    prefill_start_ns: IntArray
    prefill_done_ns: IntArray
    kv_arrived_ns: IntArray
    decode_start_ns: IntArray
    prefill_queued_ns: IntArray | None = None
    first_made_ns: IntArray | None = None


@dataclass(frozen=True, eq=False)
class PoolUse:
    """Hold how full each worker was between the first arrival and the last, one figure per worker."""

    prefill_busy_frac: FloatArray
    decode_batch_mean: FloatArray
    decode_kv_used_frac: FloatArray


@dataclass(frozen=True, eq=False)
class RequestLog:
    """Hold the requests of a run in order of arrival; all arrays have shape (n,).

    Times are int64 nanoseconds since the start of the test, -1 where the event never occurred. `error` is an
    empty string for an answered request. Workers are numbered within their pool, -1 where unknown.
    `began_at_s` is the start of the test in seconds since the epoch, None where no clock recorded it. A load
    client records `sent_ns`, when each request was written to its connection, and `client_busy_frac`, the
    share of the run in which the thread that streams all requests computed; both are None elsewhere.
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
    sent_ns: IntArray | None = None
    client_busy_frac: float | None = None

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.scheduled_ns)


_SCALARS = ("began_at_s", "client_busy_frac")
_NOT_PER_REQUEST = ("stages", "pools", *_SCALARS)
"""Fields of RequestLog that do not hold one figure per request."""


def write_requests(path: Path, log: RequestLog) -> None:
    """Write `log` atomically to the .npz archive `path`; raise ConfigurationError where that fails."""
    arrays: dict[str, Any] = {}
    for part in (log, log.stages, log.pools):
        if part is not None:
            arrays |= {f.name: getattr(part, f.name) for f in fields(part)}
    arrays = {
        name: array for name, array in arrays.items() if array is not None and name not in ("stages", "pools")
    }
    arrays["error"] = _narrow(log.error)
    with open_atomic(path) as file:
        np.savez(file, **arrays)


def read_requests(path: Path) -> RequestLog:
    """Read an archive of `write_requests`; raise ResumableError for a missing, torn or incomplete one."""
    try:
        with open(path, "rb", opener=regular_file) as file, np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
        log = RequestLog(
            **{
                f.name: arrays[f.name]
                for f in fields(RequestLog)
                if f.name not in _NOT_PER_REQUEST and (f.default is MISSING or f.name in arrays)
            },
            stages=_part(Stages, arrays),
            pools=_part(PoolUse, arrays),
            **{name: _scalar(arrays, name) for name in _SCALARS},
        )
    except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
        raise ResumableError(_unreadable(path, str(error))) from error
    per_request = [getattr(log, f.name) for f in fields(log) if f.name not in _NOT_PER_REQUEST]
    per_request += [getattr(log.stages, f.name) for f in fields(Stages)] if log.stages else []
    if any(array is not None and array.shape != (len(log),) for array in per_request):
        raise ResumableError(_unreadable(path, "its arrays differ in length"))
    return log


def _scalar(arrays: Mapping[str, Any], name: str) -> Any:
    """Return a figure of the whole run, None where it is not recorded."""
    return float(arrays[name]) if name in arrays else None


Part = TypeVar("Part", Stages, PoolUse)


def _part(kind: type[Part], arrays: Mapping[str, Any]) -> Part | None:
    """Return the arrays of `kind`, None where its first is absent; those with a default may be absent."""
    names = [f.name for f in fields(kind) if f.default is MISSING or f.name in arrays]
    return kind(**{name: arrays[name] for name in names}) if names[0] in arrays else None


def _unreadable(path: Path, found: str) -> str:
    """Return the message for an archive that cannot be read."""
    return (
        f"{path}: not a readable request record ({found}); expected the .npz that a probe writes. "
        f"{MOVE_ATTEMPT}"
    )


def _narrow(texts: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return `texts` no wider than the longest of them: NumPy pads all texts of an array to one width."""
    width = int(np.strings.str_len(texts).max(initial=1))
    return texts.astype(f"<U{width}")


def first_requests(log: RequestLog, queries: int) -> RequestLog:
    """Return the first `queries` requests of `log`, or all where it has fewer.

    Pool figures are left out: they are means over the whole run.
    """
    stages = None if log.stages is None else replace(log.stages, **_first(log.stages, queries))
    return replace(log, **_first(log, queries), stages=stages, pools=None)


def _first(record: RequestLog | Stages, queries: int) -> dict[str, Any]:
    """Return the first `queries` entries of each array of `record`, by field name."""
    arrays = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _NOT_PER_REQUEST}
    return {name: None if array is None else array[:queries] for name, array in arrays.items()}
