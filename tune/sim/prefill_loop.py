"""Run the serving loops of the prefill pool: whole or chunked prompts share a token budget in each step."""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray
from tune.core.jit import compiled, inlined
from tune.sim.prefill_pool import (
    BATCH,
    BUSY,
    FREE_BLOCKS,
    JUST_ENDED,
    LINK,
    LOAD,
    NOW,
    OUTSIDE,
    STEPS,
    PrefillQueue,
    PrefillRequests,
    PrefillResult,
    PrefillState,
    PrefillTable,
    PrefillWorker,
    empty_prefill_pool,
    has_due_step,
    pending_prompts,
    prefill_state,
)
from tune.sim.queues import HEAD, UNASSIGNED, dequeue, enqueue, least_loaded, link_end_s
from tune.sim.step_tables import SHORTEST_STEP_S


@compiled
def prefill(
    limits: PrefillWorker,
    slowdown: FloatArray,
    table: PrefillTable,
    prompts: PrefillRequests,
    result: PrefillResult,
) -> None:
    """Serve prompts first come, first served, on one worker per entry of `slowdown`.

    Parameters
    ----------
    limits
        What each worker may do. A prompt must fit its empty cache, and token_budget if it is not chunked.
    slowdown
        Factor on the steps of each worker, shape (workers,).
    table
        Step times of a worker, read where `limits.table_scale` is above 0.
    prompts
        Prompts in order of arrival.
    result
        Filled; its `worker` says which prompts are routed already.

    Notes
    -----
    A prompt holds its KV blocks from admission until they have left; a worker sends one prompt after the
    other. The least loaded worker has the fewest prompts that were routed to it and are not done, at the
    moment of arrival.
    """
    count, workers = len(prompts.tokens), len(slowdown)
    follower, sending_follower = np.full(count, UNASSIGNED, np.int64), np.full(count, UNASSIGNED, np.int64)
    queue = PrefillQueue(
        prompts.arrival_s,
        prompts.tokens,
        prompts.transfer_s,
        prompts.tokens.copy(),
        follower,
        sending_follower,
        table,
    )
    pool = empty_prefill_pool(slowdown, min(limits.max_sequences, count))
    pool.counters[:, FREE_BLOCKS] = limits.kv_tokens // limits.kv_block_tokens
    for prompt in range(count):
        if result.worker[prompt] == UNASSIGNED:
            arrival_s = prompts.arrival_s[prompt]
            for worker in range(workers):
                if has_due_step(pool, worker, arrival_s):
                    serve_prompts(limits, queue, prefill_state(pool, worker), result, arrival_s)
            result.worker[prompt] = least_loaded(pending_prompts(pool, arrival_s), prompt % workers)
        worker = result.worker[prompt]
        pool.counters[worker, LOAD] += 1
        enqueue(pool.waiting[worker], follower, prompt)
    for worker in range(workers):
        serve_prompts(limits, queue, prefill_state(pool, worker), result, np.inf)
    result.busy_s[:] = pool.clock_s[:, BUSY]
    result.steps[:] = pool.counters[:, STEPS:]


@inlined
def serve_prompts(
    limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, result: PrefillResult, until_s: float
) -> None:
    """Run every step of one worker that starts before `until_s`."""
    counters, clock_s = state.counters, state.clock_s
    while clock_s[NOW] < until_s:
        release_sent(limits, queue, state, result.sent_s)
        admit_prompts(limits, queue, state, result.start_s)
        if counters[BATCH] > 0:
            planned = plan_chunks(limits, queue, state, limits.token_budget)
            counters[JUST_ENDED] = 0
            ended, duration_s = _step(limits, queue, state, planned)
            if ended:
                finish_prompts(queue, state, result, limits.fill_steps * duration_s)
        elif state.waiting[HEAD] == UNASSIGNED:
            return
        elif queue.arrival_s[state.waiting[HEAD]] > clock_s[NOW]:
            clock_s[NOW] = queue.arrival_s[state.waiting[HEAD]]
        else:
            clock_s[NOW] = result.sent_s[state.sending[HEAD]]


@compiled
def _blocks(limits: PrefillWorker, tokens: int) -> int:
    """Return the KV blocks that hold `tokens`."""
    return -(-tokens // limits.kv_block_tokens)


@inlined
def release_sent(limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, sent_s: FloatArray) -> None:
    """Free the KV blocks of prompts whose cache has left."""
    while state.sending[HEAD] != UNASSIGNED and sent_s[state.sending[HEAD]] <= state.clock_s[NOW]:
        state.counters[FREE_BLOCKS] += _blocks(limits, queue.tokens[state.sending[HEAD]])
        dequeue(state.sending, queue.sending_follower)


@inlined
def admit_prompts(
    limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, start_s: FloatArray
) -> None:
    """Admit arrived prompts in order while slots and KV blocks are free."""
    counters, now_s = state.counters, state.clock_s[NOW]
    if limits.static_batch and counters[BATCH] > 0:
        return
    while state.waiting[HEAD] != UNASSIGNED and counters[BATCH] < len(state.active):
        prompt = state.waiting[HEAD]
        blocks = _blocks(limits, queue.tokens[prompt])
        if queue.arrival_s[prompt] > now_s or blocks > counters[FREE_BLOCKS]:
            return
        dequeue(state.waiting, queue.follower)
        state.active[counters[BATCH]] = prompt
        start_s[prompt] = now_s
        counters[FREE_BLOCKS] -= blocks
        counters[BATCH] += 1


@inlined
def plan_chunks(limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, budget: int) -> int:
    """Plan the tokens of each active prompt in the next step; return how many prompts take part.

    The step reads at most `budget` tokens, above 0. EQUAL_PROGRESS gives every prompt an equal share first;
    the rest goes in order of arrival. A chunk that does not end its prompt is cut to whole KV blocks, unless
    the budget is less than one block.

    Source: TensorRT-LLM's micro batch scheduler, whose unit of chunks is tokens_per_block.
    """
    active, chunk = state.active, state.chunk
    batch = state.counters[BATCH]
    unit = min(limits.kv_block_tokens, budget)
    share = budget // batch if limits.chunked and limits.equal_progress else 0
    share -= share % unit
    dealt = 0
    for slot in range(batch if share > 0 else 0):
        chunk[slot] = min(queue.left[active[slot]], share)
        dealt += chunk[slot]
    budget -= dealt
    for slot in range(batch):
        given = chunk[slot] if share > 0 else 0
        wanted = queue.left[active[slot]] - given
        taken = wanted if wanted <= budget else budget - budget % unit
        if share == 0 and (taken == 0 or (wanted > budget and not limits.chunked)):
            return slot
        chunk[slot] = given + taken
        budget -= taken
    return int(batch)


@compiled
def _step(
    limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, planned: int
) -> tuple[bool, float]:
    """Run the step of the `planned` oldest prompts; return whether any ended, and its seconds."""
    clock_s = state.clock_s
    ended, work_s = read_chunks(limits, queue, state, planned, 0)
    duration_s = state.slowdown * work_s
    clock_s[BUSY] += max(0.0, min(clock_s[NOW] + duration_s, limits.window_s) - clock_s[NOW])
    clock_s[NOW] += duration_s
    return ended, duration_s


@inlined
def read_chunks(
    limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, planned: int, answers: int
) -> tuple[bool, float]:
    """Read the chunks of the `planned` oldest prompts; return whether any ended, and the seconds of the step.

    The step also has a token of each of `answers`, whose attention is not counted here.
    """
    left = queue.left
    total, pairs, ended = answers, 0.0, False
    for slot in range(planned):
        new, prompt = state.chunk[slot], state.active[slot]
        total += new
        pairs += new * (queue.tokens[prompt] - left[prompt] + new / 2)
        left[prompt] -= new
        ended = ended or left[prompt] == 0
    work_s = limits.step_s + limits.token_s * total + limits.pair_s * pairs
    if limits.table_scale > 0:
        work_s = _tabled_s(limits, queue, state, total, pairs)
    return ended, work_s


@compiled
def _cell(at: FloatArray, value: float) -> tuple[int, float]:
    """Return the index left of `value`, and its distance from there in cells: beyond the ends not 0 .. 1."""
    if len(at) == 1:
        return 0, 0.0
    left = min(max(int(np.searchsorted(at, value)) - 1, 0), len(at) - 2)
    return left, (value - at[left]) / (at[left + 1] - at[left])


@compiled
def _table_s(table: PrefillTable, tokens: int, attended: float) -> float:
    """Return the seconds of a prefill step of `tokens` new tokens, each of which attends to `attended`."""
    row, down = _cell(table.tokens, float(tokens))
    column, right = _cell(table.attended, attended)
    next_column = min(column + 1, len(table.attended) - 1)
    above = table.step_s[row, column] * (1 - right) + table.step_s[row, next_column] * right
    below = table.step_s[row + 1, column] * (1 - right) + table.step_s[row + 1, next_column] * right
    return float(max(above * (1 - down) + below * down, SHORTEST_STEP_S))


@compiled
def _is_known(table: PrefillTable, tokens: int, attended: float) -> bool:
    """Return whether a step lies within the table; without contexts only its new tokens count."""
    knots = table.attended
    known = len(knots) == 1 or knots[0] <= attended <= knots[-1]
    return bool(known and table.tokens[1] <= tokens <= table.tokens[-2])


@compiled
def _tabled_s(
    limits: PrefillWorker, queue: PrefillQueue, state: PrefillState, total: int, pairs: float
) -> float:
    """Return the seconds of a step by the table of step times, and count it."""
    state.counters[STEPS] += 1
    state.counters[OUTSIDE] += not _is_known(queue.table, total, pairs / total)
    tabled_s = limits.table_scale * _table_s(queue.table, total, pairs / total)
    return tabled_s + limits.step_s + limits.token_s * total


@inlined
def finish_prompts(queue: PrefillQueue, state: PrefillState, result: PrefillResult, fill_s: float) -> None:
    """Remove finished prompts, done `fill_s` from now; the others keep their order.

    Those that have just ended stand behind the batch in `active`.
    """
    counters, clock_s = state.counters, state.clock_s
    done_s = clock_s[NOW] + fill_s
    kept = 0
    for slot in range(counters[BATCH]):
        prompt = state.active[slot]
        if queue.left[prompt] > 0:
            state.active[slot], state.active[kept] = state.active[kept], prompt
            kept += 1
            continue
        result.done_s[prompt] = done_s
        result.sent_s[prompt] = link_end_s(clock_s, LINK, done_s, queue.transfer_s[prompt])
        enqueue(state.sending, queue.sending_follower, prompt)
    counters[JUST_ENDED] = counters[BATCH] - kept
    counters[LOAD] -= counters[JUST_ENDED]
    counters[BATCH] = kept
