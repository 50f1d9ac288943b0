"""Compute how full the pools of a live deployment were, from its workers' metrics during a probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tune.analysis.breakdown import no_stages, pool_figures
from tune.analysis.counter_values import counter_value
from tune.core.arrays import FloatArray
from tune.engines.registry import engine_of
from tune.manifest.engine_signals import WorkerCounter
from tune.records.outcome import Breakdown
from tune.records.requests import PoolUse, RequestLog
from tune.records.scrapes import METRICS_FILE, Scrape, mean, read_metrics, total
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

Samples = Mapping[str, float]
"""Value of each sample of a worker, by its name with its labels."""

MIN_SCRAPES = 400
"""Fewest scrapes of a worker from which the busiest one is named.

So many scrapes show its busy share to 2.5 % (sd) at worst: sqrt(p (1 - p) / n) at p = 1/2. With fewer
scrapes the busiest worker may be so by chance.
"""


@dataclass(frozen=True, eq=False)
class _Gauge:
    """Hold one metric of one worker: `at_s` (n,) seconds since the epoch, `values` (n,)."""

    at_s: FloatArray
    values: FloatArray

    def mean(self, begin_s: float, end_s: float) -> float:
        """Return the mean over time from `begin_s` to `end_s`, linear between scrapes."""
        inside = (self.at_s > begin_s) & (self.at_s < end_s)
        at_s = np.concatenate(([begin_s], self.at_s[inside], [end_s]))
        return float(np.trapezoid(np.interp(at_s, self.at_s, self.values), at_s) / (end_s - begin_s))


def scraped_breakdown(folder: Path, log: RequestLog, spec: TrialSpec) -> Breakdown | None:
    """Return pool figures from the metrics beside requests.npz, between the first arrival and the last.

    A prefill worker counts as busy while it holds a request: waiting, in its prefill, or sending its cache.
    How long an aggregated one reads prompts, no counter says.
    The busiest one is stated where the record is long enough. A decode batch is what the engine reports as
    running, or the requests that the worker holds where the engine reports nothing. A figure is None where
    a worker of the pool does not expose it. Stages are None, because workers count requests and not their
    marks.

    Parameters
    ----------
    folder
        The probe's folder.
    log
        The requests of the probe.
    spec
        The trial: its engine names the metrics, its decode settings the slots.

    Returns
    -------
    Breakdown or None
        None without metrics, and where `log` does not say when it began.

    Raises
    ------
    ResumableError
        For a torn record of metrics.
    """
    path = folder / METRICS_FILE
    span_s = float(log.scheduled_ns[-1]) / 1e9
    if log.began_at_s is None or span_s <= 0 or not path.exists():
        return None
    begin_s, scrapes = log.began_at_s, read_metrics(path)
    pools, scrape_count = _pools(scrapes, spec, begin_s, begin_s + span_s)
    figures = pool_figures(pools, spec.decode)
    if all(value is None for value in figures.values()):
        return None
    if scrape_count < MIN_SCRAPES:
        figures["prefill_utilisation_max"] = None
    return Breakdown(**no_stages(), **figures)


def _pools(scrapes: Sequence[Scrape], spec: TrialSpec, begin_s: float, end_s: float) -> tuple[PoolUse, int]:
    """Return the pools from `begin_s` to `end_s`, and the fewest scrapes of a prefill worker in that time."""
    counter, metrics = engine_of(spec).signals.in_flight, engine_of(spec).metrics
    in_flight = [_in_flight(worker, counter) for worker in _workers(scrapes, "prefill")]
    decode = _workers(scrapes, spec.pools[-1].role)
    busy = [None if gauge is None else _Gauge(gauge.at_s, np.sign(gauge.values)) for gauge in in_flight]
    batch = [
        _engine_gauge(worker, metrics.running, total) or _in_flight(worker, counter) for worker in decode
    ]
    kv_used = [_engine_gauge(worker, metrics.kv_used, mean) for worker in decode]
    scrape_counts = [
        int(((gauge.at_s >= begin_s) & (gauge.at_s <= end_s)).sum())
        for gauge in in_flight
        if gauge is not None
    ]
    means = [_means(gauges, begin_s, end_s) for gauges in (busy, batch, kv_used)]
    return PoolUse(*means), min(scrape_counts, default=0)


def _workers(scrapes: Sequence[Scrape], role: Role) -> list[list[Scrape]]:
    """Return the answered scrapes of each worker of a pool; a plan calls workers ROLE_wNUMBER."""
    by_worker: dict[str, list[Scrape]] = {}
    for scrape in scrapes:
        if scrape.process.startswith(f"{role}_w"):
            answered = by_worker.setdefault(scrape.process, [])
            if scrape.samples:
                answered.append(scrape)
    return list(by_worker.values())


def _in_flight(scrapes: Sequence[Scrape], counter: WorkerCounter) -> _Gauge | None:
    """Return the requests that a worker holds, None where it does not expose them."""
    return _gauge(scrapes, lambda samples: counter_value(samples, counter))


def _engine_gauge(
    scrapes: Sequence[Scrape], names: Sequence[str], over_ranks: Callable[..., float | None]
) -> _Gauge | None:
    """Return the first of `names` that a worker exposes, over all its ranks; None where it exposes none."""
    found = (_gauge(scrapes, partial(over_ranks, name=name)) for name in names)
    return next((gauge for gauge in found if gauge is not None), None)


def _gauge(scrapes: Sequence[Scrape], value_of: Callable[[Samples], float | None]) -> _Gauge | None:
    """Return what `value_of` finds in a worker's scrapes, None where it finds nothing."""
    values = [(scrape.at_s, value_of(scrape.samples)) for scrape in scrapes]
    known = np.array([(at_s, value) for at_s, value in values if value is not None], float)
    return _Gauge(known[:, 0], known[:, 1]) if len(known) else None


def _means(gauges: Sequence[_Gauge | None], begin_s: float, end_s: float) -> FloatArray:
    """Return the mean of each worker, shape (workers,); empty where one exposes nothing."""
    known = [gauge.mean(begin_s, end_s) for gauge in gauges if gauge is not None]
    return np.array(known if len(known) == len(gauges) else [], float)
