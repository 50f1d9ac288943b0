"""Serve prompts on prefill workers with steps of a second and more, for tests of the prefill loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tune.core.arrays import IntArray
from tune.sim.prefill_loop import prefill
from tune.sim.prefill_pool import (
    NO_PREFILL_TABLE,
    PrefillRequests,
    PrefillResult,
    PrefillTable,
    PrefillWorker,
    empty_prefill_result,
)

WORKER = PrefillWorker(
    max_sequences=8,
    token_budget=128,
    kv_tokens=12_800,
    kv_block_tokens=32,
    chunked=True,
    equal_progress=False,
    static_batch=False,
    step_s=1.0,
    token_s=0.01,
    pair_s=0.0,
    table_scale=0.0,
    fill_steps=0,
    window_s=1e9,
)
BLOCK = 32


def serve_prompts(
    tokens: list[int],
    worker: list[int] | IntArray,
    arrival_s: list[float] | None = None,
    transfer_s: float = 0.0,
    slowdown: tuple[float, ...] = (1.0,),
    *,
    table: PrefillTable = NO_PREFILL_TABLE,
    **limits: Any,
) -> PrefillResult:
    """Serve prompts on one worker per entry of `slowdown`; `worker` routes each, or is UNASSIGNED."""
    count = len(tokens)
    arrivals = np.zeros(count) if arrival_s is None else np.array(arrival_s)
    prompts = PrefillRequests(arrivals, np.array(tokens, np.int64), np.full(count, transfer_s))
    served = empty_prefill_result(np.array(worker, np.int64), len(slowdown))
    prefill(WORKER._replace(**limits), np.array(slowdown), table, prompts, served)
    return served
