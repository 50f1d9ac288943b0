"""Simulate the delay of the slowest requests by KV cache transfers, for every rate of the links.

A cache queues at the links of the worker that sends it and of the worker that receives it. Prefill does not
wait for links, so links are simulated behind each simulated prefill pool, at several utilisations. Delays are
stored as multiples of the time that the mean cache takes on one link, so that they apply to any link rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.queues import link_end_s
from tune.sim.routing import entry_pool, route_by_frontend, route_by_worker
from tune.spec.trial import TrialSpec

LINK_UTILISATION = np.array([0.02, 0.3, 0.5, 0.65, 0.8, 0.9, 1.0])
"""Simulated utilisations of the links, in the pool that has fewer of them."""

SIMULATED_QUERIES = 4000
"""Number of requests simulated for the links at each utilisation."""

_ROUTING_SEED_OFFSET = 1_000_003
"""Added to the shuffle seed, so that the simulated routing differs from the routing of every run."""


@dataclass(frozen=True, eq=False)
class CompletedPrefill:
    """Hold simulated requests in order of arrival, arrays of shape (n,).

    `prompt` counts tokens, `worker` is the prefill worker, and `done_s` the end of its prefill.
    """

    arrival_s: FloatArray
    prompt: IntArray
    worker: IntArray
    done_s: FloatArray


def link_count(spec: TrialSpec) -> int:
    """Return the number of links, one a GPU, of the pool that has fewer GPUs."""
    return min(
        spec.split.prefill_workers * spec.prefill.gpus,
        spec.split.decode_workers * spec.decode.gpus,
    )


def transfer_delays(
    loads: Sequence[CompletedPrefill], spec: TrialSpec, router: str, on_time_frac: float
) -> FloatArray:
    """Return how much later the slowest requests are ready for decode than without links.

    `loads` are runs of the prefill pool of `spec` at several loads, routed by `router`. The delay is the
    difference of the `on_time_frac` quantiles. The result has the shape (loads, link utilisations), in units
    of the time that the mean cache takes on one link.
    """
    sender_gpus, receiver_gpus = spec.prefill.gpus, spec.decode.gpus
    delays = np.empty((len(loads), len(LINK_UTILISATION)))
    for index, load in enumerate(loads):
        first = CompletedPrefill(*(column[:SIMULATED_QUERIES] for column in vars(load).values()))
        receiver = _receivers(spec, router, first)
        gap_s = max(np.diff(first.arrival_s).mean() if len(first.arrival_s) > 1 else 0.0, 1e-9)
        link_s = LINK_UTILISATION * link_count(spec) * gap_s
        frac = first.prompt / load.prompt.mean()
        sent_s, received_s = np.outer(link_s / sender_gpus, frac), np.outer(link_s / receiver_gpus, frac)
        ready_s = transfer_end_s(first.done_s, first.worker, receiver, sent_s, received_s)
        slowest_s = np.quantile(ready_s - first.arrival_s, on_time_frac, axis=1)
        delays[index] = (slowest_s - np.quantile(first.done_s - first.arrival_s, on_time_frac)) / link_s
    return np.maximum(delays, 1 / max(sender_gpus, receiver_gpus))


def _receivers(spec: TrialSpec, router: str, sent: CompletedPrefill) -> IntArray:
    """Return the decode worker of each request, shape (n,).

    A least-loaded router is approximated by round-robin. The first worker is a random draw that differs from
    the draw of every run.
    """
    router_mode = "round-robin" if router == "least-loaded" else router
    stack = spec.stack.model_copy(update={"router_mode": router_mode})
    load = spec.load.model_copy(update={"shuffle_seed": spec.load.shuffle_seed + _ROUTING_SEED_OFFSET})
    rerouted = spec.model_copy(update={"stack": stack, "load": load})
    if entry_pool(spec) == "decode":
        return route_by_frontend(rerouted, "decode", np.arange(len(sent.done_s)))
    order = np.argsort(sent.done_s, kind="stable")
    if entry_pool(spec) == "prefill":
        return route_by_worker(rerouted, "decode", order, sent.worker)
    return route_by_frontend(rerouted, "decode", order)


@compiled
def transfer_end_s(
    done_s: FloatArray, sender: IntArray, receiver: IntArray, sent_s: FloatArray, received_s: FloatArray
) -> FloatArray:
    """Return when each cache has passed both links, shape (k, n) for k rates of the links.

    A cache leaves the worker `sender` (n,) at `done_s` (n,) or when its link is free, and enters the link of
    `receiver` (n,) as it leaves. On free links it takes `sent_s` and `received_s` (k, n) seconds.
    """
    passed, workers = np.empty(sent_s.shape), max(sender.max(), receiver.max()) + 1
    order = np.argsort(done_s, kind="mergesort")
    for run in range(len(sent_s)):
        free_s, end_s = np.zeros(workers), np.empty(len(order))
        for request in order:
            end_s[request] = link_end_s(free_s, sender[request], done_s[request], sent_s[run, request])
        free_s = np.zeros(workers)
        for request in np.argsort(end_s, kind="mergesort"):
            begun_s = end_s[request] - sent_s[run, request]
            passed_s = link_end_s(free_s, receiver[request], begun_s, received_s[run, request])
            passed[run, request] = max(end_s[request], passed_s)
    return passed
