"""Route requests to workers by routers that ignore the state of the pool."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tune.core.arrays import IntArray
from tune.sim.queues import UNASSIGNED
from tune.spec.trial import TrialSpec

RoutedPool = Literal["prefill", "decode"]


def entry_pool(spec: TrialSpec) -> RoutedPool | None:
    """Return the pool whose workers are endpoints and route to the other; None if the frontend routes both.

    Source: Dynamo's TensorRT-LLM workers of 2025, and its frontend since the strategy flag was removed.
    """
    if spec.stack.dynamo == "v1":
        return None
    return "prefill" if spec.split.disaggregation_strategy == "prefill_first" else "decode"


def route_by_frontend(spec: TrialSpec, pool: RoutedPool, order: IntArray) -> IntArray:
    """Route requests to the workers of a pool by one process.

    Parameters
    ----------
    spec
        Trial whose router is used.
    pool
        Pool that is routed to.
    order
        Requests in the order in which they are routed, shape (n,).

    Returns
    -------
    IntArray
        Worker of each request, shape (n,); UNASSIGNED for a least-loaded router, which needs the state.
    """
    workers, count = _workers(spec, pool), len(order)
    if spec.stack.router_mode == "least-loaded":
        return np.full(count, UNASSIGNED, np.int64)
    routed = np.arange(count) % workers
    if spec.stack.router_mode == "random":
        routed = _random_state(spec, pool).randint(workers, size=count)
    return _by_request(order, routed)


def route_by_worker(spec: TrialSpec, pool: RoutedPool, order: IntArray, entry: IntArray) -> IntArray:
    """Route requests to the workers of a pool round-robin, by each endpoint worker for itself.

    Parameters
    ----------
    spec
        Trial that is simulated.
    pool
        Pool that is routed to.
    order
        Requests in the order in which they are routed, shape (n,).
    entry
        Endpoint worker of each request, shape (n,).

    Returns
    -------
    IntArray
        Worker of each request, shape (n,).

    Notes
    -----
    Each endpoint worker begins its count at a random worker, so that no two counts are in step. Source: the
    round-robin counter of Dynamo's push router, one per client process.
    """
    workers = _workers(spec, pool)
    entered = entry[order]
    begin = _random_state(spec, pool).randint(
        workers, size=max(spec.split.prefill_workers, spec.split.decode_workers)
    )
    return _by_request(order, (_turns(entered) + begin[entered]) % workers)


def _turns(entered: IntArray) -> IntArray:
    """Return how many requests entered at the same worker before each one, in the order of `entered` (n,)."""
    requests = np.bincount(entered)
    by_worker = np.argsort(entered.astype(np.int16), kind="stable")
    turns = np.empty_like(entered)
    turns[by_worker] = np.arange(len(entered)) - np.repeat(np.cumsum(requests) - requests, requests)
    return turns


def _workers(spec: TrialSpec, pool: RoutedPool) -> int:
    """Return the number of workers of a pool."""
    return spec.split.prefill_workers if pool == "prefill" else spec.split.decode_workers


def _random_state(spec: TrialSpec, pool: RoutedPool) -> np.random.RandomState:
    """Return random draws that depend on the shuffle and the pool."""
    words = [spec.load.shuffle_seed, _workers(spec, pool), pool == "decode"]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))


def _by_request(order: IntArray, routed: IntArray) -> IntArray:
    """Return workers by request, where `routed` (n,) lists them in `order` (n,)."""
    worker = np.empty(len(order), np.int64)
    worker[order] = routed
    return worker
