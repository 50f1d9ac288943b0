"""How full the pools of a live deployment were, by what its workers said while a probe ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune.analysis.breakdown import no_stages, pool_figures
from tune.core.arrays import FloatArray
from tune.engines.base import EngineAdapter
from tune.engines.registry import engine_of
from tune.manifest.engine_signals import WorkerCounter
from tune.records.outcome import Breakdown
from tune.records.requests import PoolUse, RequestLog
from tune.records.scrapes import METRICS_FILE, Scrape, read_metrics, total
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

FEWEST_SCRAPES = 400
"""So many glances at a worker tell its busy share to 2.5 % (sd) at worst: sqrt(p (1 - p) / n) at p = 1/2. The
busiest of workers that were seen less often is the one that was glanced at by the best chance."""


@dataclass(frozen=True, eq=False)
class _Gauge:
    """What one worker said of one figure: `at_s` (n,) seconds since the epoch, `values` (n,)."""

    at_s: FloatArray
    values: FloatArray

    def mean(self, begin_s: float, end_s: float) -> float:
        """Over time from `begin_s` to `end_s`, on straight lines from one scrape to the next."""
        inside = (self.at_s > begin_s) & (self.at_s < end_s)
        at_s = np.concatenate(([begin_s], self.at_s[inside], [end_s]))
        return float(np.trapezoid(np.interp(at_s, self.at_s, self.values), at_s) / (end_s - begin_s))


def scraped_breakdown(folder: Path, log: RequestLog, spec: TrialSpec) -> Breakdown | None:
    """Pool figures from the metrics beside requests.npz, None where there are none or `log` has no epoch.

    Between the first arrival and the last. A prefill worker counts as busy while it holds a request: waiting,
    in its prefill, or sending its cache; the busiest one is told where the record is long enough. A decode
    batch is what the engine says is running, or the requests that the worker holds where it says nothing.
    A figure is None where a worker of the pool does not tell it. Stages are None: workers count requests, and
    no request's marks. Raises ResumableError for a record that is torn.
    """
    path = folder / METRICS_FILE
    span_s = float(log.scheduled_ns[-1]) / 1e9
    if log.began_at_s is None or span_s <= 0 or not path.exists():
        return None
    begin_s, scrapes = log.began_at_s, read_metrics(path)
    pools, glances = _pools(scrapes, engine_of(spec), begin_s, begin_s + span_s)
    figures = pool_figures(pools, spec.decode)
    if all(value is None for value in figures.values()):
        return None
    if glances < FEWEST_SCRAPES:
        figures["prefill_utilisation_most"] = None
    return Breakdown(**no_stages(), **figures)


def _pools(
    scrapes: Sequence[Scrape], engine: EngineAdapter, begin_s: float, end_s: float
) -> tuple[PoolUse, int]:
    """The pools from `begin_s` to `end_s`, and the fewest scrapes of a prefill worker in that time."""
    in_flight, gauges = engine.signals.in_flight, engine.gauges
    held = [_in_flight(of_worker, in_flight) for of_worker in _workers(scrapes, "prefill")]
    decode = _workers(scrapes, "decode")
    busy = [None if gauge is None else _Gauge(gauge.at_s, np.sign(gauge.values)) for gauge in held]
    batch = [
        _engine_gauge(of_worker, gauges.running) or _in_flight(of_worker, in_flight) for of_worker in decode
    ]
    kv_used = [_engine_gauge(of_worker, gauges.kv_used) for of_worker in decode]
    glances = [
        int(((gauge.at_s >= begin_s) & (gauge.at_s <= end_s)).sum()) for gauge in held if gauge is not None
    ]
    means = [_means(gauges, begin_s, end_s) for gauges in (busy, batch, kv_used)]
    return PoolUse(*means), min(glances, default=0)


def _workers(scrapes: Sequence[Scrape], role: Role) -> list[list[Scrape]]:
    """The scrapes that were answered, of each worker of a pool. Workers are called ROLE_wNUMBER in a plan."""
    found: dict[str, list[Scrape]] = {}
    for scrape in scrapes:
        if scrape.process.startswith(f"{role}_w"):
            of_worker = found.setdefault(scrape.process, [])
            if scrape.samples:
                of_worker.append(scrape)
    return list(found.values())


def _in_flight(of_worker: Sequence[Scrape], counter: WorkerCounter) -> _Gauge | None:
    return _gauge(of_worker, counter.name, **counter.labels)


def _engine_gauge(of_worker: Sequence[Scrape], names: Sequence[str]) -> _Gauge | None:
    """The first of `names` that the worker tells."""
    return next((gauge for name in names if (gauge := _gauge(of_worker, name)) is not None), None)


def _gauge(of_worker: Sequence[Scrape], name: str, **labels: str) -> _Gauge | None:
    told = [(scrape.at_s, total(scrape.samples, name, **labels)) for scrape in of_worker]
    known = np.array([(at_s, value) for at_s, value in told if value is not None], float)
    return _Gauge(known[:, 0], known[:, 1]) if len(known) else None


def _means(gauges: Sequence[_Gauge | None], begin_s: float, end_s: float) -> FloatArray:
    """Mean of each worker, shape (workers,); empty where one of them does not tell."""
    known = [gauge.mean(begin_s, end_s) for gauge in gauges if gauge is not None]
    return np.array(known if len(known) == len(gauges) else [], float)
