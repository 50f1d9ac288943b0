"""The highest rate at which first tokens come in time, over many racks at once: prefill, then links."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.surrogate.kv_transfer import LINK_UTILISATION

HALVINGS, WORTH_HALVING = 5, 0.05
"""Between two loads of the curves the rate is looked for in so many steps, where links take such a share of
the time: what they add bends."""

LATE_S = 1e6
"""Of links that are busy all the time."""


class PrefillPools(NamedTuple):
    """Curves (pools, runs, variants, loads) in seconds, at each `utilisation` (loads,), the rate of each pool
    at utilisation 1 (pools,), and the rate up to which each run is the one that is asked (runs,)."""

    utilisation: FloatArray
    curve_s: FloatArray
    saturated_qps: FloatArray
    up_to_qps: FloatArray


class PoolPairs(NamedTuple):
    """A prefill pool and the decode pool behind it: GPUs with a link of the one that has fewer (pairs,), and
    ln of what links add, (pairs, routers, loads, busy shares), as tune.surrogate.kv_transfer has it."""

    pool: IntArray
    links: IntArray
    ln_waits: FloatArray


class PrefillParameters(NamedTuple):
    """By rack (racks,): the variant of the curves, the router, what the TTFT limit leaves for prefill and
    links, the GPU seconds that the mean cache takes on a link. `scale` (racks, pairs): of the steps."""

    variant: IntArray
    router: IntArray
    left_s: FloatArray
    link_s: FloatArray
    scale: FloatArray


class _Curve(NamedTuple):
    """`seconds` at each `utilisation` (loads,), `scale` times as many on the rack; rate at utilisation 1."""

    seconds: FloatArray
    scale: float
    utilisation: FloatArray
    saturated_qps: float


class _Links(NamedTuple):
    """Seconds that the mean cache takes on one of the `links`, and ln of what it waits, (loads, busy)."""

    link_s: float
    links: int
    ln_waits: FloatArray


@compiled
def prefill_capacity_qps(pools: PrefillPools, pairs: PoolPairs, racks: PrefillParameters) -> FloatArray:
    """Queries/s, (racks, pairs), where the slowest requests take what the TTFT limit leaves."""
    found = np.zeros(racks.scale.shape)
    for rack in range(len(racks.link_s)):
        variant, router = racks.variant[rack], racks.router[rack]
        left_s, link_s = racks.left_s[rack], racks.link_s[rack]
        for pair in range(len(pairs.pool)):
            pool, scale = pairs.pool[pair], racks.scale[rack, pair]
            links = _Links(link_s, pairs.links[pair], pairs.ln_waits[pair, router])
            saturated_qps, least_qps = pools.saturated_qps[pool] / scale, 0.0
            for run in range(len(pools.up_to_qps)):
                curve = _Curve(pools.curve_s[pool, run, variant], scale, pools.utilisation, saturated_qps)
                qps = _highest_qps(curve, links, left_s)
                found[rack, pair] = max(qps, least_qps)
                if qps <= pools.up_to_qps[run]:
                    break
                least_qps = pools.up_to_qps[run]
    return found


@compiled
def _highest_qps(curve: _Curve, links: _Links, left_s: float) -> float:
    """Where a curve and links meet the limit; 0 where they begin above it. A curve is straight in logarithms
    between its points, and so is its sum with little of links."""
    below, above = -1, len(curve.utilisation)
    low_s = high_s = high_linked_s = 0.0
    while above - below > 1:
        middle = (below + above) // 2
        linked_s = _linked_s(links, middle, curve.utilisation[middle] * curve.saturated_qps)
        taken_s = curve.scale * curve.seconds[middle] + linked_s
        if taken_s <= left_s:
            below, low_s = middle, taken_s
        else:
            above, high_s, high_linked_s = middle, taken_s, linked_s
    if below == -1:
        return 0.0
    low_qps = curve.utilisation[below] * curve.saturated_qps
    if above == len(curve.utilisation):
        return float(low_qps)
    ln_steps = math.log(curve.utilisation[above] / curve.utilisation[below])
    low, high = 0.0, 1.0
    if high_linked_s > WORTH_HALVING * high_s:
        ln_rises = math.log(curve.seconds[above] / curve.seconds[below])
        for _ in range(HALVINGS):
            share = (low + high) / 2
            qps = low_qps * math.exp(share * ln_steps)
            one, other = _linked_s(links, below, qps), _linked_s(links, above, qps)
            own_s = curve.scale * curve.seconds[below] * math.exp(share * ln_rises)
            taken_s = own_s + (1 - share) * one + share * other
            if taken_s <= left_s:
                low, low_s = share, taken_s
            else:
                high, high_s = share, taken_s
    share = low + (high - low) * math.log(left_s / low_s) / math.log(high_s / low_s)
    return float(low_qps * math.exp(share * ln_steps))


@compiled
def _linked_s(links: _Links, load: int, qps: float) -> float:
    """What the links add to the slowest requests at about that `load` of the prefill pool."""
    busy = qps * links.link_s / links.links
    if busy >= LINK_UTILISATION[-1]:
        return LATE_S
    ln_waits = links.ln_waits[load]
    if busy <= LINK_UTILISATION[0]:
        return float(links.link_s * math.exp(ln_waits[0]))
    at = 0
    while LINK_UTILISATION[at + 1] < busy:
        at += 1
    share = (busy - LINK_UTILISATION[at]) / (LINK_UTILISATION[at + 1] - LINK_UTILISATION[at])
    return float(links.link_s * math.exp(ln_waits[at] + share * (ln_waits[at + 1] - ln_waits[at])))
