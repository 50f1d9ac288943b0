"""Serve requests on decode workers with steps of a second, for tests of the decode loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from tune.sim.decode_loop import decode
from tune.sim.decode_pool import (
    RESERVE_ANSWERS,
    DecodeRequests,
    DecodeResult,
    DecodeSteps,
    DecodeWorker,
    empty_decode_result,
    linear_steps,
)

WORKER = DecodeWorker(
    policy=RESERVE_ANSWERS,
    slots=4,
    kv_tokens=10_000,
    kv_block_tokens=32,
    stall_token_s=0.0,
    transfer_latency_s=0.0,
    token_budget=64,
    recompute_step_s=0.5,
    recompute_token_s=0.01,
    recompute_pair_s=0.0001,
    window_s=1e12,
)
STEP_S, SEQUENCE_S, BLOCK = 1.0, 0.1, 32


def bent_steps(slots: int, *context_token_s: float) -> DecodeSteps:
    """Return steps whose cost of a context token changes at mean contexts of 40, 80, ... tokens."""
    batch = np.arange(slots + 1)[:, None]
    bounds = 40.0 * np.arange(1, len(context_token_s))
    jumps = np.concatenate([[0.0], np.cumsum(np.diff(context_token_s) * bounds)])
    batch_s = STEP_S + SEQUENCE_S * batch - jumps * batch
    token_s = np.tile(context_token_s, (slots + 1, 1))
    return DecodeSteps(batch_s, token_s, np.append(bounds, np.inf), np.ones(token_s.shape, np.bool_))


def decode_requests(
    answer: list[int], ready_s: list[float] | None, prompt: list[int] | None, transfer_s: float
) -> DecodeRequests:
    """Return requests that reserve the longest answer; their caches are all sent by `ready_s`, 0 if None."""
    count = len(answer)
    sent_s = np.zeros(count) if ready_s is None else np.array(ready_s)
    prompts = np.array(prompt or [1] * count, np.int64)
    return DecodeRequests(
        np.arange(count),
        sent_s - transfer_s,
        sent_s,
        np.full(count, transfer_s),
        prompts,
        np.array(answer, np.int64),
        -(-(prompts + max(answer)) // BLOCK) * BLOCK,
    )


def serve(
    answer: list[int],
    worker: list[int],
    ready_s: list[float] | None = None,
    prompt: list[int] | None = None,
    *,
    sequence_s: float = 0.0,
    step_s: float = STEP_S,
    slowdown: tuple[float, ...] = (1.0,),
    transfer_s: float = 0.0,
    context_token_s: float = 0.0,
    steps: DecodeSteps | None = None,
    **limits: Any,
) -> DecodeResult:
    """Serve requests on one worker per entry of `slowdown`; `worker` routes each, or is UNASSIGNED."""
    requests = decode_requests(answer, ready_s, prompt, transfer_s)
    served = empty_decode_result(np.array(worker, np.int64), len(slowdown))
    limited = WORKER._replace(**limits)
    batch_s = np.array([step_s + sequence_s * batch for batch in range(limited.slots + 1)])
    decode(limited, np.array(slowdown), steps or linear_steps(batch_s, context_token_s), requests, served)
    return served
