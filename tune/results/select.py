"""A part of a request record."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from tune.results.requests import RequestLog, Stages

_NOT_BY_REQUEST = ("stages", "pools", "began_at_s")


def first_requests(log: RequestLog, queries: int) -> RequestLog:
    """The first `queries` requests of `log`, or all; without pool figures, which are of the whole run."""
    stages = None if log.stages is None else replace(log.stages, **_first(log.stages, queries))
    return replace(log, **_first(log, queries), stages=stages, pools=None)


def _first(record: RequestLog | Stages, queries: int) -> dict[str, Any]:
    arrays = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in _NOT_BY_REQUEST}
    return {name: None if array is None else array[:queries] for name, array in arrays.items()}
