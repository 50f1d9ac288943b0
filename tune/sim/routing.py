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
    """Route requests to the workers of a pool by the frontends.

    Parameters
    ----------
    spec
        Trial whose router is used.
    pool
        Pool that is routed to.
    order
        Requests, numbered in the order of their arrival, in the order in which they are routed, shape (n,).

    Returns
    -------
    IntArray
        Worker of each request, shape (n,); UNASSIGNED for a least-loaded or kv router, which needs the state.

    Notes
    -----
    The load client gives requests to the frontends in turn. Of several frontends each has a round-robin
    counter of its own, which begins at a random worker.
    """
    workers, count = _workers(spec, pool), len(order)
    if spec.stack.router_mode in ("least-loaded", "kv"):
        return np.full(count, UNASSIGNED, np.int64)
    frontends = spec.split.frontends
    if spec.stack.router_mode == "round-robin" and frontends > 1:
        begin = _random_state(spec, pool).randint(workers, size=frontends)
        return _in_turn(order, np.arange(count) % frontends, begin, workers)
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
    begin = _random_state(spec, pool).randint(
        workers, size=max(spec.split.prefill_workers, spec.split.decode_workers)
    )
    return _in_turn(order, entry, begin, workers)


def _in_turn(order: IntArray, router: IntArray, begin: IntArray, workers: int) -> IntArray:
    """Return the worker of each request, (n,), where every router counts round-robin from its own `begin`.

    `router` (n,) is that of each request.
    """
    entered = router[order]
    requests = np.bincount(entered)
    by_router = np.argsort(entered.astype(np.int16), kind="stable")
    turn = np.empty_like(entered)
    turn[by_router] = np.arange(len(order)) - np.repeat(np.cumsum(requests) - requests, requests)
    return _by_request(order, (turn + begin[entered]) % workers)


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
