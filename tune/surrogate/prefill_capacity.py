"""Compute the highest rate at which first tokens are on time, for many parameter samples at once.

The slowest requests take the prefill latency at the pool's load plus the KV transfer delay at the load of the
links. The capacity is the rate at which the sum equals what the TTFT limit leaves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.surrogate.kv_transfer import LINK_UTILISATION

BISECTION_STEPS, BISECTION_LINK_FRAC = 5, 0.05
"""Number of bisection steps between two points of a latency curve, and the share of the latency from which
links make them necessary: transfer delays bend the curve."""

SATURATED_LINK_DELAY_S = 1e6
"""Delay of links that are busy all the time, seconds."""


class PrefillPools(NamedTuple):
    """Hold the simulated latency curves of all prefill pools.

    `latency_s` has the shape (pools, runs, variants, loads), one load for each `utilisation` (loads,); a
    variant is a router and a slowdown of the frontend's node. `saturated_qps` (pools,) is the rate at
    utilisation 1, and `max_qps` (runs,) the rate up to which the benchmark requires that length.
    """

    utilisation: FloatArray
    latency_s: FloatArray
    saturated_qps: FloatArray
    max_qps: FloatArray


class PoolPairs(NamedTuple):
    """Hold prefill pools together with the decode pools behind them.

    `pool` (pairs,) indexes PrefillPools, `links` (pairs,) is what `link_count` returns, and `log_delays`
    (pairs, routers, loads, link utilisations) the log of what `transfer_delays` returns.
    """

    pool: IntArray
    links: IntArray
    log_delays: FloatArray


class PrefillParameters(NamedTuple):
    """Hold the effects of the parameter samples on prefill and links.

    `variant` and `router` (samples,) index the curves, `budget_s` (samples,) is what the TTFT limit leaves
    for prefill and transfer, `transfer_s` (samples,) the time of the mean cache on one link, and `step_scale`
    (samples, pairs) the scale of the steps.
    """

    variant: IntArray
    router: IntArray
    budget_s: FloatArray
    transfer_s: FloatArray
    step_scale: FloatArray


class _Curve(NamedTuple):
    """Hold one latency curve: `scale` times `seconds` at each `utilisation` (loads,)."""

    seconds: FloatArray
    scale: float
    utilisation: FloatArray
    saturated_qps: float


class _Links(NamedTuple):
    """Hold the links of one pair; `log_delays` has the shape (loads, link utilisations)."""

    transfer_s: float
    links: int
    log_delays: FloatArray


@compiled
def prefill_capacity_qps(pools: PrefillPools, pairs: PoolPairs, parameters: PrefillParameters) -> FloatArray:
    """Return the rate at which the slowest requests take the whole budget, queries/s, (samples, pairs).

    Runs are tried from the shortest on; a run counts up to its `max_qps`.
    """
    capacity_qps = np.zeros(parameters.step_scale.shape)
    for sample in range(len(parameters.transfer_s)):
        variant, router = parameters.variant[sample], parameters.router[sample]
        budget_s, transfer_s = parameters.budget_s[sample], parameters.transfer_s[sample]
        for pair in range(len(pairs.pool)):
            pool, scale = pairs.pool[pair], parameters.step_scale[sample, pair]
            links = _Links(transfer_s, pairs.links[pair], pairs.log_delays[pair, router])
            saturated_qps, least_qps = pools.saturated_qps[pool] / scale, 0.0
            for run in range(len(pools.max_qps)):
                curve = _Curve(pools.latency_s[pool, run, variant], scale, pools.utilisation, saturated_qps)
                qps = _highest_qps(curve, links, budget_s)
                capacity_qps[sample, pair] = max(qps, least_qps)
                if qps <= pools.max_qps[run]:
                    break
                least_qps = pools.max_qps[run]
    return capacity_qps


@compiled
def _highest_qps(curve: _Curve, links: _Links, budget_s: float) -> float:
    """Return the rate at which curve and links together take `budget_s`; 0 if they always take longer.

    A curve is interpolated linearly in logarithms between its points, and so is its sum with a small delay of
    the links.
    """
    below, above = -1, len(curve.utilisation)
    low_s = high_s = high_link_s = 0.0
    while above - below > 1:
        middle = (below + above) // 2
        link_s = _transfer_delay_s(links, middle, curve.utilisation[middle] * curve.saturated_qps)
        total_s = curve.scale * curve.seconds[middle] + link_s
        if total_s <= budget_s:
            below, low_s = middle, total_s
        else:
            above, high_s, high_link_s = middle, total_s, link_s
    if below == -1:
        return 0.0
    low_qps = curve.utilisation[below] * curve.saturated_qps
    if above == len(curve.utilisation):
        return float(low_qps)
    log_load_step = math.log(curve.utilisation[above] / curve.utilisation[below])
    low, high = 0.0, 1.0
    if high_link_s > BISECTION_LINK_FRAC * high_s:
        log_latency_step = math.log(curve.seconds[above] / curve.seconds[below])
        for _ in range(BISECTION_STEPS):
            share = (low + high) / 2
            qps = low_qps * math.exp(share * log_load_step)
            below_link_s, above_link_s = (
                _transfer_delay_s(links, below, qps),
                _transfer_delay_s(links, above, qps),
            )
            prefill_s = curve.scale * curve.seconds[below] * math.exp(share * log_latency_step)
            total_s = prefill_s + (1 - share) * below_link_s + share * above_link_s
            if total_s <= budget_s:
                low, low_s = share, total_s
            else:
                high, high_s = share, total_s
    share = low + (high - low) * math.log(budget_s / low_s) / math.log(high_s / low_s)
    return float(low_qps * math.exp(share * log_load_step))


@compiled
def _transfer_delay_s(links: _Links, load: int, qps: float) -> float:
    """Return the delay of the slowest requests in the links at `qps`, with the prefill pool near `load`."""
    busy = qps * links.transfer_s / links.links
    if busy >= LINK_UTILISATION[-1]:
        return SATURATED_LINK_DELAY_S
    log_delays = links.log_delays[load]
    if busy <= LINK_UTILISATION[0]:
        return float(links.transfer_s * math.exp(log_delays[0]))
    index = 0
    while LINK_UTILISATION[index + 1] < busy:
        index += 1
    share = (busy - LINK_UTILISATION[index]) / (LINK_UTILISATION[index + 1] - LINK_UTILISATION[index])
    return float(
        links.transfer_s * math.exp(log_delays[index] + share * (log_delays[index + 1] - log_delays[index]))
    )
