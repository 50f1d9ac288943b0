"""Which worker serves a request, where that does not depend on how the pool is doing."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tune.core.arrays import IntArray
from tune.sim.queues import UNASSIGNED
from tune.spec.trial import TrialSpec

RoutedPool = Literal["prefill", "decode"]


def entry_pool(spec: TrialSpec) -> RoutedPool | None:
    """The pool whose workers are the endpoint and choose from the other; None where the frontend does both.

    Source: Dynamo's TensorRT-LLM workers of 2025, and its frontend since the strategy flag was removed.
    """
    if spec.stack.dynamo == "v1":
        return None
    return "prefill" if spec.split.disaggregation_strategy == "prefill_first" else "decode"


def route_by_frontend(spec: TrialSpec, pool: RoutedPool, order: IntArray) -> IntArray:
    """Worker of each request, shape (n,), dealt out by one process to requests in `order`.

    NOBODY everywhere where the least loaded is to be chosen.
    """
    workers, count = _workers(spec, pool), len(order)
    if spec.stack.router_mode == "least-loaded":
        return np.full(count, UNASSIGNED, np.int64)
    dealt = np.arange(count) % workers
    if spec.stack.router_mode == "random":
        dealt = _draws(spec, pool).randint(workers, size=count)
    return _in_order(order, dealt)


def route_by_worker(spec: TrialSpec, pool: RoutedPool, order: IntArray, entry: IntArray) -> IntArray:
    """Worker of each request, shape (n,), round-robin by the worker `entry` (n,) that has it, in `order`.

    Each endpoint worker counts for itself, and no count is in step with another's: they begin where a draw
    says. Source: the round-robin counter of Dynamo's push router, one a client process.
    """
    workers = _workers(spec, pool)
    entered = entry[order]
    turn = np.zeros(len(order), np.int64)
    for worker in range(int(entered.max(initial=-1)) + 1):
        mine = np.flatnonzero(entered == worker)
        turn[mine] = np.arange(len(mine))
    begin = _draws(spec, pool).randint(
        workers, size=max(spec.split.prefill_workers, spec.split.decode_workers)
    )
    return _in_order(order, (turn + begin[entered]) % workers)


def _workers(spec: TrialSpec, pool: RoutedPool) -> int:
    return spec.split.prefill_workers if pool == "prefill" else spec.split.decode_workers


def _draws(spec: TrialSpec, pool: RoutedPool) -> np.random.RandomState:
    words = [spec.load.shuffle_seed, _workers(spec, pool), pool == "decode"]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))


def _in_order(order: IntArray, dealt: IntArray) -> IntArray:
    worker = np.empty(len(order), np.int64)
    worker[order] = dealt
    return worker
