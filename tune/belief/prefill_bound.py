"""The highest rate at which first tokens come in time, over many racks at once: prefill, then links."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.results.requests import FloatArray, IntArray
from tune.sim.compiled import compiled

LONG_PROMPT = 1.1
"""Length of a prompt whose first token is late, over the mean. Our choice, as is QUEUED: what agrees best
with the simulated rack."""

QUEUED = 0.75
"""The slowest caches wait for a link so many times b / (1 - b) of what they take on it, at a busy share b. In
the mean it is half of b / (1 - b): Pollaczek and Khinchine, of equal service times."""

BUSIEST = 0.98
"""Share of the time above which a link is not thought to be busy."""


class Pools(NamedTuple):
    """Curves (pools, runs, variants, loads) in seconds, at each `utilisation` (loads,), the rate of each pool
    at utilisation 1 (pools,), and the rate up to which each run is the one that is asked (runs,)."""

    utilisation: FloatArray
    curve_s: FloatArray
    saturated_qps: FloatArray
    up_to_qps: FloatArray


class Pairs(NamedTuple):
    """A prefill pool and the decode pool behind it: workers of each, and GPUs of a worker, (pairs,)."""

    pool: IntArray
    senders: IntArray
    sender_gpus: IntArray
    receivers: IntArray
    receiver_gpus: IntArray


class OnRacks(NamedTuple):
    """By rack (racks,): the variant of the curves, what the TTFT limit leaves for prefill and links, the GPU
    seconds that the mean cache takes on a link. `scale` (racks, pairs): of the steps."""

    variant: IntArray
    left_s: FloatArray
    link_s: FloatArray
    scale: FloatArray


class _Links(NamedTuple):
    """Seconds that the mean cache takes on the links of its sender and receiver, and workers of each."""

    sent_s: float
    received_s: float
    senders: int
    receivers: int


@compiled
def prefill_qps(pools: Pools, pairs: Pairs, racks: OnRacks) -> FloatArray:
    """Queries/s, (racks, pairs), where the slowest requests take what the TTFT limit leaves."""
    found = np.zeros(racks.scale.shape)
    for rack in range(len(racks.link_s)):
        variant, left_s, link_s = racks.variant[rack], racks.left_s[rack], racks.link_s[rack]
        for pair in range(len(pairs.pool)):
            pool, scale = pairs.pool[pair], racks.scale[rack, pair]
            sent_s, received_s = link_s / pairs.sender_gpus[pair], link_s / pairs.receiver_gpus[pair]
            links = _Links(sent_s, received_s, pairs.senders[pair], pairs.receivers[pair])
            saturated_qps, least_qps = pools.saturated_qps[pool] / scale, 0.0
            for run in range(len(pools.up_to_qps)):
                curve_s = scale * pools.curve_s[pool, run, variant]
                qps = _highest_qps(curve_s, pools.utilisation * saturated_qps, links, left_s)
                found[rack, pair] = max(qps, least_qps)
                if qps <= pools.up_to_qps[run]:
                    break
                least_qps = pools.up_to_qps[run]
    return found


@compiled
def _highest_qps(curve_s: FloatArray, qps: FloatArray, links: _Links, left_s: float) -> float:
    """Where a curve, seconds at rates `qps`, (loads,) each, meets the limit, straight in logarithms between
    its points; 0 where it begins above."""
    below, above = -1, len(qps)
    low_s = high_s = 0.0
    while above - below > 1:
        middle = (below + above) // 2
        taken_s = curve_s[middle] + _linked_s(links, qps[middle])
        if taken_s <= left_s:
            below, low_s = middle, taken_s
        else:
            above, high_s = middle, taken_s
    if below == -1:
        return 0.0
    if above == len(qps):
        return float(qps[-1])
    share = np.log(left_s / low_s) / np.log(high_s / low_s)
    return float(qps[below] * (qps[above] / qps[below]) ** share)


@compiled
def _linked_s(links: _Links, qps: float) -> float:
    """What the links add to the slowest requests: a cache passes both ends at once where they are free."""
    sending = min(qps * links.sent_s / links.senders, BUSIEST)
    receiving = min(qps * links.received_s / links.receivers, BUSIEST)
    waited_s = links.sent_s * sending / (1 - sending) + links.received_s * receiving / (1 - receiving)
    return float(LONG_PROMPT * max(links.sent_s, links.received_s) + QUEUED * waited_s)
