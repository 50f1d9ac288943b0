"""Route requests to workers by routers that ignore the state of the pool."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from tune.core.arrays import IntArray
from tune.sim.queues import UNASSIGNED
from tune.spec.split import Role
from tune.spec.trial import TrialSpec


class TurnRouter(NamedTuple):
    """Give requests to the workers of a pool as they come, where their order is not known before.

    With `by_load` each goes to the least loaded worker. Otherwise the k-th goes to `drawn[k]`, or, where that
    is empty, to the next worker of its router, each of which counts from its own `begin` (routers,). `router`
    (n,) is that of each request, UNASSIGNED for the worker that has read its prompt.
    """

    by_load: bool
    drawn: IntArray
    router: IntArray
    begin: IntArray


def entry_pool(spec: TrialSpec) -> Literal["prefill", "decode"] | None:
    """Return the pool whose workers are endpoints and route to the other; None if the frontend routes both.

    Source: Dynamo's TensorRT-LLM workers of 2025, and its frontend since the strategy flag was removed.
    """
    if spec.stack.dynamo == "v1":
        return None
    return "prefill" if spec.split.disaggregation_strategy == "prefill_first" else "decode"


def route_by_frontend(spec: TrialSpec, pool: Role, order: IntArray) -> IntArray:
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
    The load client gives requests to the frontends in turn. With several frontends each has a round-robin
    counter of its own, which begins at a random worker.
    """
    workers, count = spec.split.workers(pool), len(order)
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


def route_by_worker(spec: TrialSpec, pool: Role, order: IntArray, entry: IntArray) -> IntArray:
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
    workers = spec.split.workers(pool)
    begin = _random_state(spec, pool).randint(
        workers, size=max(spec.split.prefill_workers, spec.split.decode_workers)
    )
    return _in_turn(order, entry, begin, workers)


def decode_router(spec: TrialSpec, count: int) -> TurnRouter:
    """Return the router of `count` requests to the decode workers, as the other functions route an open loop.

    Where the decode workers are endpoints, it is not asked.
    """
    split, none = spec.split, np.zeros(0, np.int64)
    workers, entry, mode = split.workers("decode"), entry_pool(spec), spec.stack.router_mode
    if entry == "prefill":
        begin = _random_state(spec, "decode").randint(
            workers, size=max(split.prefill_workers, split.decode_workers)
        )
        return TurnRouter(False, none, np.full(count, UNASSIGNED), begin)
    if mode == "random":
        drawn = _random_state(spec, "decode").randint(workers, size=count)
        return TurnRouter(False, drawn, np.zeros(count, np.int64), np.zeros(1, np.int64))
    begin = np.zeros(1, np.int64)
    if mode == "round-robin" and split.frontends > 1:
        begin = _random_state(spec, "decode").randint(workers, size=split.frontends)
    router = np.arange(count) % len(begin)
    return TurnRouter(mode in ("least-loaded", "kv"), none, router, begin)


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


def _random_state(spec: TrialSpec, pool: Role) -> np.random.RandomState:
    """Return random draws that depend on the shuffle and the pool."""
    words = [spec.load.shuffle_seed, spec.split.workers(pool), pool == "decode"]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))


def _by_request(order: IntArray, routed: IntArray) -> IntArray:
    """Return workers by request, where `routed` (n,) lists them in `order` (n,)."""
    worker = np.empty(len(order), np.int64)
    worker[order] = routed
    return worker
