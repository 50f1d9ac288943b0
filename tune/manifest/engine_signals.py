"""Describe the logs and metrics of an engine's workers, as an orchestrator reads them."""

from __future__ import annotations

from pydantic import Field

from tune.spec.base import FrozenModel
from tune.spec.failure import FailureRule


class WorkerCounter(FrozenModel):
    """Name a metric of a worker's /metrics; samples count that have all of `labels`.

    `earlier` names the same metric in earlier releases of the software, the latest first.
    """

    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    earlier: tuple[WorkerCounter, ...] = ()


class EngineSignals(FrozenModel):
    """Describe the meaning of an engine's logs and metrics.

    `failure_rules` say what lines of a worker's log mean. `requests` counts the requests that a worker has
    received, `in_flight` the ones that it has not answered to the end; `frontend_in_flight` counts those of a
    frontend, and what waits there for a worker.
    """

    failure_rules: tuple[FailureRule, ...]
    requests: WorkerCounter
    in_flight: WorkerCounter
    frontend_in_flight: WorkerCounter
