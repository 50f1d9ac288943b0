"""Read a counter of a worker or frontend under the name that its release gives it."""

from __future__ import annotations

from collections.abc import Mapping

from tune.manifest.engine_signals import WorkerCounter
from tune.records.scrapes import total


def counter_value(samples: Mapping[str, float], counter: WorkerCounter) -> float | None:
    """Return the value of `counter`; None where the process has it under none of its names."""
    values = (total(samples, named.name, **named.labels) for named in (counter, *counter.earlier))
    return next((value for value in values if value is not None), None)
