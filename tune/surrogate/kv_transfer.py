"""What slow links add to the slowest requests: caches that queue at the worker that sends and at the next.

The prefill of a prompt does not wait for links, so they are simulated behind each simulated prefill pool, at
several shares of the time for which they are busy. What is found is a time in units of the mean cache's on
one link, so that it serves every rate of the links.
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
"""Shares of the time for which the links of the pool that has fewer are busy."""

SIMULATED_QUERIES = 4000
"""So many requests say enough of links."""


@dataclass(frozen=True, eq=False)
class CompletedPrefill:
    """Requests in order of arrival, (n,): tokens of their prompts, prefill worker and end of prefill."""

    arrival_s: FloatArray
    prompt: IntArray
    worker: IntArray
    done_s: FloatArray


def link_count(spec: TrialSpec) -> int:
    """GPUs, each with a link, of the pool that has fewer."""
    return min(
        spec.split.prefill_workers * spec.prefill.gpus,
        spec.split.decode_workers * spec.decode.gpus,
    )


def transfer_delays(
    loads: Sequence[CompletedPrefill], spec: TrialSpec, router: str, on_time_frac: float
) -> FloatArray:
    """How much later the slowest requests are ready for decode than without links, (loads, BUSY), in times
    that one link takes for the mean cache. `loads`: the prefill pool of `spec` at several, with `router`."""
    sender_gpus, receiver_gpus = spec.prefill.gpus, spec.decode.gpus
    found = np.empty((len(loads), len(LINK_UTILISATION)))
    for at, whole in enumerate(loads):
        some = CompletedPrefill(*(column[:SIMULATED_QUERIES] for column in vars(whole).values()))
        receiver = _receivers(spec, router, some)
        gap_s = max(np.diff(some.arrival_s).mean() if len(some.arrival_s) > 1 else 0.0, 1e-9)
        link_s = LINK_UTILISATION * link_count(spec) * gap_s
        frac = some.prompt / whole.prompt.mean()
        sent_s, received_s = np.outer(link_s / sender_gpus, frac), np.outer(link_s / receiver_gpus, frac)
        ready_s = transfer_end_s(some.done_s, some.worker, receiver, sent_s, received_s)
        late_s = np.quantile(ready_s - some.arrival_s, on_time_frac, axis=1)
        found[at] = (late_s - np.quantile(some.done_s - some.arrival_s, on_time_frac)) / link_s
    return np.maximum(found, 1 / max(sender_gpus, receiver_gpus))


def _receivers(spec: TrialSpec, router: str, sent: CompletedPrefill) -> IntArray:
    """The decode worker of each request, (n,); where it is the least loaded, in turns, which comes to about
    the same. Which worker begins is a draw, and this is another one than any run's."""
    dealt = "round-robin" if router == "least-loaded" else router
    stack = spec.stack.model_copy(update={"router_mode": dealt})
    load = spec.load.model_copy(update={"shuffle_seed": spec.load.shuffle_seed + 1_000_003})
    another = spec.model_copy(update={"stack": stack, "load": load})
    if entry_pool(spec) == "decode":
        return route_by_frontend(another, "decode", np.arange(len(sent.done_s)))
    order = np.argsort(sent.done_s, kind="stable")
    if entry_pool(spec) == "prefill":
        return route_by_worker(another, "decode", order, sent.worker)
    return route_by_frontend(another, "decode", order)


@compiled
def transfer_end_s(
    done_s: FloatArray, sender: IntArray, receiver: IntArray, sent_s: FloatArray, received_s: FloatArray
) -> FloatArray:
    """When each cache has passed both ends, (k, n), that takes `sent_s` and `received_s` (k, n) where these
    are free. It leaves the worker `sender` (n,) from `done_s` (n,) on."""
    found, workers = np.empty(sent_s.shape), max(sender.max(), receiver.max()) + 1
    order = np.argsort(done_s, kind="mergesort")
    for run in range(len(sent_s)):
        free_s, end_s = np.zeros(workers), np.empty(len(order))
        for request in order:
            end_s[request] = link_end_s(free_s, sender[request], done_s[request], sent_s[run, request])
        free_s = np.zeros(workers)
        for request in np.argsort(end_s, kind="mergesort"):
            begun_s = end_s[request] - sent_s[run, request]
            passed_s = link_end_s(free_s, receiver[request], begun_s, received_s[run, request])
            found[run, request] = max(end_s[request], passed_s)
    return found
