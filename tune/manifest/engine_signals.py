"""Describe the logs and metrics of an engine's workers, as an orchestrator reads them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from tune.spec.base import FrozenModel


def _compiles(pattern: str) -> str:
    """Return `pattern`. Raises ValueError where it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
    return pattern


class WorkerCounter(FrozenModel):
    """Name a metric of a worker's /metrics; samples count that have all of `labels`."""

    name: str
    labels: dict[str, str] = Field(default_factory=dict)


class EngineSignals(FrozenModel):
    """Describe the meaning of an engine's logs and metrics.

    A worker whose log matches one of `failure_patterns`, regular expressions, ended because of its
    configuration. `requests` counts the requests that a worker has received, `in_flight` the ones that it has
    not answered to the end; `frontend_in_flight` counts those of a frontend, and what waits there for a
    worker.
    """

    failure_patterns: tuple[Annotated[str, AfterValidator(_compiles)], ...]
    requests: WorkerCounter
    in_flight: WorkerCounter
    frontend_in_flight: WorkerCounter
