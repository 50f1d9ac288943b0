"""The serving loops of the prefill pool: prompts, whole or in chunks, share a token budget step by step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.queues import HEAD, UNASSIGNED, dequeue, empty_queues, enqueue, least_loaded, link_end_s

_BATCH, _FREE_BLOCKS, _LOAD, _JUST_ENDED = range(4)
_NOW, _BUSY, _LINK = range(3)


class PrefillWorker(NamedTuple):
    """What each worker may do. A step takes step + token x new tokens + pair x attended pairs seconds.

    `fill_steps`: further pipeline stages that the last step of a prompt passes. `window_s`: use is counted
    up to here.
    """

    max_batch_size: int
    max_num_tokens: int
    kv_tokens: int
    kv_block_tokens: int
    chunked: bool
    equal_progress: bool
    static_batch: bool
    step_s: float
    token_s: float
    pair_s: float
    fill_steps: int
    window_s: float


class PrefillRequests(NamedTuple):
    """Prompts in order of arrival, with the time that each KV transfer takes on a free link. Shape (n,)."""

    arrival_s: FloatArray
    tokens: IntArray
    transfer_s: FloatArray


class PrefillResult(NamedTuple):
    """Written by the loops: start and end of each prefill, when its KV cache has left the worker (n,).

    `worker` (n,) is read where NOBODY does not stand; there the least loaded worker is chosen.
    `busy_s` (workers,): seconds of the window in which each worker had a step to run.
    """

    worker: IntArray
    start_s: FloatArray
    done_s: FloatArray
    sent_s: FloatArray
    busy_s: FloatArray


class _Jobs(NamedTuple):
    """What the loops know of each prompt (n,): `left` is what it lacks, `behind` and `after` its queues."""

    arrival_s: FloatArray
    tokens: IntArray
    transfer_s: FloatArray
    left: IntArray
    behind: IntArray
    after: IntArray


class _State(NamedTuple):
    """One worker: `active` lists prompts oldest first, `chunk` their tokens in the next step.

    `waiting` (2,) are the ends of the queue for admission, `sending` of prompts done whose cache still
    leaves. `number` and `clock_s` hold the counters and times named above.
    """

    slowdown: float
    active: IntArray
    chunk: IntArray
    waiting: IntArray
    sending: IntArray
    number: IntArray
    clock_s: FloatArray


class _Pool(NamedTuple):
    """The states of all workers, one a row."""

    slowdown: FloatArray
    active: IntArray
    chunk: IntArray
    waiting: IntArray
    sending: IntArray
    number: IntArray
    clock_s: FloatArray


@compiled
def prefill(
    limits: PrefillWorker, slowdown: FloatArray, prompts: PrefillRequests, served: PrefillResult
) -> None:
    """Serve `prompts` first come, first served, on one worker per entry of `slowdown`. Fills `served`.

    A prompt holds its KV blocks from admission until they have left; a worker sends one prompt after the
    other. Each must fit the empty cache, and max_num_tokens where prompts are not chunked. Least loaded
    counts prompts that were routed to a worker and are not done, at the moment of arrival.
    """
    count, workers = len(prompts.tokens), len(slowdown)
    behind, after = np.full(count, UNASSIGNED, np.int64), np.full(count, UNASSIGNED, np.int64)
    jobs = _Jobs(prompts.arrival_s, prompts.tokens, prompts.transfer_s, prompts.tokens.copy(), behind, after)
    pool = _empty_pool(slowdown, min(limits.max_batch_size, count))
    pool.number[:, _FREE_BLOCKS] = limits.kv_tokens // limits.kv_block_tokens
    for prompt in range(count):
        if served.worker[prompt] == UNASSIGNED:
            arrival_s = prompts.arrival_s[prompt]
            for worker in range(workers):
                if _is_due(pool, worker, arrival_s):
                    _serve(limits, jobs, _state(pool, worker), served, arrival_s)
            served.worker[prompt] = least_loaded(_loads(pool, arrival_s), prompt % workers)
        worker = served.worker[prompt]
        pool.number[worker, _LOAD] += 1
        enqueue(pool.waiting[worker], behind, prompt)
    for worker in range(workers):
        _serve(limits, jobs, _state(pool, worker), served, np.inf)
    served.busy_s[:] = pool.clock_s[:, _BUSY]


@compiled
def _empty_pool(slowdown: FloatArray, slots: int) -> _Pool:
    workers = len(slowdown)
    return _Pool(
        slowdown,
        np.zeros((workers, slots), np.int64),
        np.zeros((workers, slots), np.int64),
        empty_queues(workers),
        empty_queues(workers),
        np.zeros((workers, 4), np.int64),
        np.zeros((workers, 3)),
    )


@compiled
def _state(pool: _Pool, worker: int) -> _State:
    return _State(
        pool.slowdown[worker],
        pool.active[worker],
        pool.chunk[worker],
        pool.waiting[worker],
        pool.sending[worker],
        pool.number[worker],
        pool.clock_s[worker],
    )


@compiled
def _is_due(pool: _Pool, worker: int, until_s: float) -> bool:
    """Whether a worker has a step to start before `until_s`: most have none from one arrival to the next."""
    idle = pool.number[worker, _BATCH] == 0 and pool.waiting[worker, HEAD] == UNASSIGNED
    return bool(pool.clock_s[worker, _NOW] < until_s and not idle)


@compiled
def _loads(pool: _Pool, now_s: float) -> IntArray:
    """Prompts that each worker has yet to finish; a step under way ends only after `now_s`."""
    load = pool.number[:, _LOAD].copy()
    for worker in range(len(load)):
        if pool.clock_s[worker, _NOW] > now_s:
            load[worker] += pool.number[worker, _JUST_ENDED]
    return load


@compiled
def _serve(limits: PrefillWorker, jobs: _Jobs, state: _State, served: PrefillResult, until_s: float) -> None:
    """Run every step of one worker that starts before `until_s`."""
    number, clock_s = state.number, state.clock_s
    while clock_s[_NOW] < until_s:
        _release(limits, jobs, state, served.sent_s)
        _admit(limits, jobs, state, served.start_s)
        if number[_BATCH] > 0:
            planned = _plan(limits, jobs, state)
            number[_JUST_ENDED] = 0
            ended, duration_s = _step(limits, jobs, state, planned)
            if ended:
                _finish(jobs, state, served, limits.fill_steps * duration_s)
        elif state.waiting[HEAD] == UNASSIGNED:
            return
        elif jobs.arrival_s[state.waiting[HEAD]] > clock_s[_NOW]:
            clock_s[_NOW] = jobs.arrival_s[state.waiting[HEAD]]
        else:
            clock_s[_NOW] = served.sent_s[state.sending[HEAD]]


@compiled
def _blocks(limits: PrefillWorker, tokens: int) -> int:
    return -(-tokens // limits.kv_block_tokens)


@compiled
def _release(limits: PrefillWorker, jobs: _Jobs, state: _State, sent_s: FloatArray) -> None:
    while state.sending[HEAD] != UNASSIGNED and sent_s[state.sending[HEAD]] <= state.clock_s[_NOW]:
        state.number[_FREE_BLOCKS] += _blocks(limits, jobs.tokens[state.sending[HEAD]])
        dequeue(state.sending, jobs.after)


@compiled
def _admit(limits: PrefillWorker, jobs: _Jobs, state: _State, start_s: FloatArray) -> None:
    number, now_s = state.number, state.clock_s[_NOW]
    if limits.static_batch and number[_BATCH] > 0:
        return
    while state.waiting[HEAD] != UNASSIGNED and number[_BATCH] < len(state.active):
        prompt = state.waiting[HEAD]
        blocks = _blocks(limits, jobs.tokens[prompt])
        if jobs.arrival_s[prompt] > now_s or blocks > number[_FREE_BLOCKS]:
            return
        dequeue(state.waiting, jobs.behind)
        state.active[number[_BATCH]] = prompt
        start_s[prompt] = now_s
        number[_FREE_BLOCKS] -= blocks
        number[_BATCH] += 1


@compiled
def _plan(limits: PrefillWorker, jobs: _Jobs, state: _State) -> int:
    """Tokens of the active prompts in the next step, within max_num_tokens; returns how many take part.

    EQUAL_PROGRESS deals every prompt the same share first; what is left over goes in order of arrival. A
    chunk that does not end its prompt is cut to whole KV blocks, unless the budget is less than one.
    Source: TensorRT-LLM's micro batch scheduler, whose unit of chunks is tokens_per_block.
    """
    active, chunk = state.active, state.chunk
    batch, budget = state.number[_BATCH], limits.max_num_tokens
    unit = min(limits.kv_block_tokens, budget)
    share = budget // batch if limits.chunked and limits.equal_progress else 0
    share -= share % unit
    dealt = 0
    for slot in range(batch if share > 0 else 0):
        chunk[slot] = min(jobs.left[active[slot]], share)
        dealt += chunk[slot]
    budget -= dealt
    for slot in range(batch):
        given = chunk[slot] if share > 0 else 0
        wanted = jobs.left[active[slot]] - given
        taken = wanted if wanted <= budget else budget - budget % unit
        if share == 0 and (taken == 0 or (wanted > budget and not limits.chunked)):
            return slot
        chunk[slot] = given + taken
        budget -= taken
    return int(batch)


@compiled
def _step(limits: PrefillWorker, jobs: _Jobs, state: _State, planned: int) -> tuple[bool, float]:
    """Run the step of the `planned` oldest prompts; returns whether any of them ended, and its seconds."""
    clock_s, left = state.clock_s, jobs.left
    total, pairs, ended = 0, 0.0, False
    for slot in range(planned):
        new, prompt = state.chunk[slot], state.active[slot]
        total += new
        pairs += new * (jobs.tokens[prompt] - left[prompt] + new / 2)
        left[prompt] -= new
        ended = ended or left[prompt] == 0
    work_s = limits.step_s + limits.token_s * total + limits.pair_s * pairs
    duration_s = state.slowdown * work_s
    clock_s[_BUSY] += max(0.0, min(clock_s[_NOW] + duration_s, limits.window_s) - clock_s[_NOW])
    clock_s[_NOW] += duration_s
    return ended, duration_s


@compiled
def _finish(jobs: _Jobs, state: _State, served: PrefillResult, fill_s: float) -> None:
    """Take out prompts that are done, `fill_s` from now; the others keep their order."""
    number, clock_s = state.number, state.clock_s
    done_s = clock_s[_NOW] + fill_s
    kept = 0
    for slot in range(number[_BATCH]):
        prompt = state.active[slot]
        if jobs.left[prompt] > 0:
            state.active[kept] = prompt
            kept += 1
            continue
        served.done_s[prompt] = done_s
        served.sent_s[prompt] = link_end_s(clock_s, _LINK, done_s, jobs.transfer_s[prompt])
        enqueue(state.sending, jobs.after, prompt)
    number[_JUST_ENDED] = number[_BATCH] - kept
    number[_LOAD] -= number[_JUST_ENDED]
    number[_BATCH] = kept
