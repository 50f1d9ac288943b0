"""Deployments that were asked for their highest rate, for the tests of the report."""

from __future__ import annotations

from typing import Any

from support.probes import spread
from support.synthetic_study import measured
from tune.records.outcome import CapacityQps, Outcome, Probe


def five_probes() -> tuple[Probe, ...]:
    """Of one search, each with another end: 16.05 held, 16.3 missed, one run stopped, two short probes."""
    return (
        asked(18.0, 9.4, full=False),
        asked(16.4, 3.3, full=False),
        asked(16.6, 7.9, stopped=True, queries=5200),
        asked(16.3, 4.62, spread=spread(2, 4.6)),
        asked(16.05, 4.31, spread=spread(4, 4.3)),
    )


def searched(
    number: int = 0,
    probes: tuple[Probe, ...] = (),
    bracket: tuple[float | None, float | None, float] = (16.05, 16.3, 16.2),
    **changes: Any,
) -> Outcome:
    """A deployment that was asked for its highest rate; its figures are those of the last probe.

    `bracket`: the highest rate that held, the lowest above it that missed, the boundary.
    """
    probes = probes or five_probes()
    best, (low, high, boundary) = probes[-1], bracket
    assert best.ttft_s
    assert best.tpot_s
    found = CapacityQps(low=low, high=high, censored=False, estimate=boundary)
    figures: dict[str, Any] = {"probes": probes, "capacity_qps": found, "spread": best.spread, **changes}
    return measured(
        number, qps=best.target_qps, ttft_p99_s=best.ttft_s.p99, tpot_p99_s=best.tpot_s.p99, **figures
    )


def asked(qps: float, ttft_p99_s: float, tpot_p99_s: float = 0.059, **changes: Any) -> Probe:
    """One probe of a search; its verdict follows from its percentiles and the limits."""
    (probe,) = measured(0, qps=qps, ttft_p99_s=ttft_p99_s, tpot_p99_s=tpot_p99_s).probes
    queries = 16626 if changes.get("full", True) else 1200
    return probe.model_copy(update={"spread": None, "queries": queries, **changes})
