"""Build outcomes of capacity searches for the tests of the report."""

from __future__ import annotations

from typing import Any

from support.synthetic_study import spread, synthetic_trial
from tune.records.outcome import CapacityQps, Outcome, Probe


def five_probes() -> tuple[Probe, ...]:
    """Return the probes of one search: 16.05 held, 16.3 missed, one full run aborted, two short runs."""
    return (
        probe_at(18.0, 9.4, full=False),
        probe_at(16.4, 3.3, full=False),
        probe_at(16.6, 7.9, stopped=True, queries=5200),
        probe_at(16.3, 4.62, spread=spread(2, 4.6)),
        probe_at(16.05, 4.31, spread=spread(4, 4.3)),
    )


def searched_trial(
    number: int = 0,
    probes: tuple[Probe, ...] = (),
    rates: tuple[float | None, float | None, float] = (16.05, 16.3, 16.2),
    **changes: Any,
) -> Outcome:
    """Return the outcome of a capacity search; its latencies are those of the last probe.

    `rates` holds the highest rate that held, the lowest one above it that missed, and the capacity.
    """
    probes = probes or five_probes()
    best, (low, high, capacity) = probes[-1], rates
    assert best.ttft_s
    assert best.tpot_s
    capacity_qps = CapacityQps(low=low, high=high, stopped_early=False, estimate=capacity)
    fields: dict[str, Any] = {
        "probes": probes,
        "capacity_qps": capacity_qps,
        "spread": best.spread,
        **changes,
    }
    return synthetic_trial(
        number, qps=best.target_qps, ttft_p99_s=best.ttft_s.p99, tpot_p99_s=best.tpot_s.p99, **fields
    )


def probe_at(qps: float, ttft_p99_s: float, tpot_p99_s: float = 0.059, **changes: Any) -> Probe:
    """Return one probe of a search; its verdict follows from its percentiles and the limits."""
    (probe,) = synthetic_trial(0, qps=qps, ttft_p99_s=ttft_p99_s, tpot_p99_s=tpot_p99_s).probes
    queries = 16626 if changes.get("full", True) else 1200
    return probe.model_copy(update={"spread": None, "queries": queries, **changes})
