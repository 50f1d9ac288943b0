"""Build the parts of a measured probe."""

from __future__ import annotations

from typing import Any

from tune.records.outcome import (
    Bottleneck,
    Breakdown,
    LatencySpread,
    Percentiles,
    Probe,
    Recommendation,
    ShuffleSpread,
)

P99_SHARES = {
    "mean": 0.36,
    "p50": 0.33,
    "p90": 0.6,
    "p95": 0.7,
    "p97": 0.79,
    "p99": 1.0,
    "p99_9": 1.55,
    "max": 1.77,
}
"""Figures of a latency as shares of its p99."""

RISING_SHARES = {name: 1.0 + index for index, name in enumerate(P99_SHARES)}
"""Figures of a latency that all differ, as multiples of the first."""

BOTTLENECK = Bottleneck(
    kind="prefill",
    evidence="p99 TTFT uses 94 % of its limit; 76 % of the slowest 2 % of first tokens is waiting for a "
    "prefill worker or sharing it with other prompts; prefill workers are busy 86 % of the time",
    recommendations=(
        Recommendation(
            text="one more prefill worker, 15P3D",
            overrides=("split.prefill_workers=15", "split.decode_workers=3"),
        ),
        Recommendation(
            text="twice the GPUs a prefill worker, 7P4D",
            overrides=("prefill.tensor_parallel_size=8", "split.prefill_workers=7", "split.decode_workers=4"),
        ),
    ),
)


def percentiles(scale: float, shares: dict[str, float] = P99_SHARES) -> Percentiles:
    """Build the figures of a latency: `scale` (the p99 unless `shares` are given) times the shares."""
    return Percentiles(**{name: share * scale for name, share in shares.items()})


def spread(
    held: int,
    ttft_p99_s: float,
    sd_s: float = 0.3,
    tpot_p99_s: float | None = 0.059,
    *,
    max_above_mean_s: float | None = None,
) -> ShuffleSpread:
    """Build five shuffles around a p99 TTFT; the SLO held in `held` of them."""
    highest_s = ttft_p99_s + (2 * sd_s if max_above_mean_s is None else max_above_mean_s)
    tpot = tpot_p99_s
    return ShuffleSpread(
        shuffles=5,
        slo_met=held,
        ttft_p99_s=LatencySpread(mean=ttft_p99_s, sd=sd_s, min=ttft_p99_s - sd_s, max=highest_s),
        tpot_p99_s=tpot and LatencySpread(mean=tpot, sd=0.001, min=tpot, max=tpot + 0.002),
    )


def breakdown(**changes: Any) -> Breakdown:
    """Build the stages of the first token and the use of both pools."""
    stages: dict[str, Any] = {
        "queue_s": 0.4,
        "prefill_s": 0.5,
        "transfer_s": 0.1,
        "slot_s": None,
        "first_step_s": 0.05,
        "prefill_utilisation": 0.85,
        "decode_batch": 119.0,
        "kv_used_frac": 0.6,
        "tail_queue_s": 2.0,
    }
    return Breakdown(**stages | changes)


def full_probe(**fields: Any) -> Probe:
    """Build a probe of full length; `fields` give its rate, verdict, throughput and latencies."""
    return Probe(**{"queries": 16_626, "reason": None, "raw": "raw/1/probe-1"} | fields)
