"""Admit requests to aggregated workers, and pause them: what slots, cache and the tokens of a step allow."""

from __future__ import annotations

from tune.core.arrays import FloatArray
from tune.core.jit import compiled, inlined
from tune.sim.aggregated_pool import HELD, PROMPTS, AggregatedQueue, AggregatedState, AggregatedWorker
from tune.sim.decode_batch import pause, room
from tune.sim.decode_pool import BATCH, EVICT_NEWEST, NOW, PAUSED, RESERVED, WHOLE_BATCHES
from tune.sim.queues import HEAD, UNASSIGNED, dequeue


@inlined
def room_left(limits: AggregatedWorker, state: AggregatedState) -> int:
    """Return the cache tokens left if every sequence wastes as much of its last block as it can."""
    slack = (limits.answers.kv_block_tokens - 1) * state.prompts.counters[PROMPTS]
    return int(room(limits.answers, state.answers) - state.prompts.counters[HELD] - slack)


@compiled
def _running(state: AggregatedState) -> int:
    """Return the sequences of the next step."""
    return int(state.answers.counters[BATCH] + state.prompts.counters[PROMPTS])


@inlined
def lacks_room(limits: AggregatedWorker, state: AggregatedState) -> bool:
    """Return whether a sequence has to be paused: not where it is the only one."""
    running = _running(state)
    evicts = limits.answers.policy == EVICT_NEWEST
    return bool(evicts and running > 1 and room_left(limits, state) < running)


@compiled
def _fits(limits: AggregatedWorker, queue: AggregatedQueue, state: AggregatedState, request: int) -> bool:
    """Return whether slot and cache are free: for the whole answer, under EVICT_NEWEST for its first token.

    vLLM asks for room for the whole prompt, too (scheduler_reserve_full_isl).
    """
    running = _running(state)
    if running >= len(state.answers.active):
        return False
    if limits.answers.policy == EVICT_NEWEST:
        slack = limits.answers.kv_block_tokens - 1
        left = room_left(limits, state) - queue.prompts.tokens[request] - slack
        return bool(left >= running + 1 or running == 0)
    reserved = state.answers.counters[RESERVED] + queue.answers.reserved[request]
    return bool(reserved <= limits.answers.kv_tokens)


@compiled
def _spare_after(limits: AggregatedWorker, state: AggregatedState, spare: int, unread: int) -> int:
    """Return what of `spare` tokens of the next step a prompt of `unread` tokens leaves, as it is planned.

    A prompt that gets none leaves none for those behind it.
    """
    if unread <= spare:
        return spare - unread
    step_tokens = limits.prompts.token_budget - state.answers.counters[BATCH]
    unit = min(limits.prompts.kv_block_tokens, step_tokens)
    return int(spare % unit) if limits.prompts.chunked and spare >= unit > 0 else 0


@compiled
def _has_tokens(limits: AggregatedWorker, state: AggregatedState, spare: int, tokens: int) -> bool:
    """Return whether the next step, of which `spare` tokens are left, reads a further prompt.

    Where all prompts share a step, or a batch begins, as many are admitted as fit.
    """
    prompts = limits.prompts
    if prompts.static_batch or prompts.equal_progress or _running(state) == 0:
        return True
    return bool(spare > 0 if prompts.chunked else tokens <= spare)


@inlined
def admit(
    limits: AggregatedWorker, queue: AggregatedQueue, state: AggregatedState, start_s: FloatArray
) -> None:
    """Admit paused requests, then arrived ones in order, while slots, cache and tokens of a step are free."""
    prompts, answers = state.prompts, state.answers
    if limits.answers.policy == WHOLE_BATCHES and _running(state) > 0:
        return
    spare = limits.prompts.token_budget - answers.counters[BATCH]
    for slot in range(prompts.counters[PROMPTS]):
        spare = _spare_after(limits, state, spare, queue.prompts.left[prompts.active[slot]])
    while True:
        was_paused = answers.counters[PAUSED] > 0
        request = answers.paused[answers.counters[PAUSED] - 1] if was_paused else answers.waiting[HEAD]
        if request == UNASSIGNED:
            return
        if not was_paused and queue.answers.ready_s[request] > answers.clock_s[NOW]:
            return
        tokens = queue.prompts.tokens[request]
        if not _fits(limits, queue, state, request) or not _has_tokens(limits, state, spare, tokens):
            return
        if was_paused:
            answers.counters[PAUSED] -= 1
        else:
            dequeue(answers.waiting, queue.answers.follower)
            start_s[request] = answers.clock_s[NOW]
        spare = _spare_after(limits, state, spare, tokens)
        prompts.active[prompts.counters[PROMPTS]] = request
        prompts.counters[PROMPTS] += 1
        prompts.counters[HELD] += tokens
        answers.counters[RESERVED] += queue.answers.reserved[request]


@inlined
def pause_newest(queue: AggregatedQueue, state: AggregatedState) -> None:
    """Pause the newest request: the last prompt that is read, else the last answer of the batch."""
    prompts, answers = state.prompts, state.answers
    if prompts.counters[PROMPTS] > 0:
        prompts.counters[PROMPTS] -= 1
        request = prompts.active[prompts.counters[PROMPTS]]
        release(queue, state, request)
        answers.paused[answers.counters[PAUSED]] = request
        answers.counters[PAUSED] += 1
    else:
        pause(queue.answers, answers)
        request = answers.paused[answers.counters[PAUSED] - 1]
        queue.prompts.tokens[request] = queue.answers.prompt[request] + queue.answers.generated[request]
    queue.prompts.left[request] = queue.prompts.tokens[request]


@inlined
def release(queue: AggregatedQueue, state: AggregatedState, request: int) -> None:
    """Take what a prompt holds from the counts of its worker."""
    state.prompts.counters[HELD] -= queue.prompts.tokens[request]
    state.answers.counters[RESERVED] -= queue.answers.reserved[request]
