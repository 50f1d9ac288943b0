"""Run the serving loops of aggregated workers, whose steps read prompts and continue answers at once.

A step continues every answer by a token; what is left of its token budget goes to prompts, in chunks as a
prefill worker takes them. A prompt that ends gives the first token of its answer in the same step. Such a
step takes as long as one of a prefill worker with as many tokens more as it continues answers, and reads the
caches of these answers besides: weights, layers and all-reduces are paid once, every token is a row of the
same matrices. Steps without a prompt are those of a decode worker.

Source: vLLM, vllm/v1/core/sched/scheduler.py (running sequences first, then waiting ones up to
max_num_batched_tokens; the newest is preempted); TensorRT-LLM, micro batch scheduler (generation requests
first, then context chunks). The sum of a step with prompts is the formula of mixed steps of AIConfigurator
(get_mix_step_latency of its backends): all operations but attention by the tokens of both, attention of each
by itself.
"""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray
from tune.core.jit import compiled
from tune.sim.aggregated_admission import admit, lacks_room, pause_newest, release, room_left
from tune.sim.aggregated_pool import (
    HELD,
    PROMPTS,
    AggregatedPool,
    AggregatedQueue,
    AggregatedRequests,
    AggregatedResult,
    AggregatedState,
    AggregatedSteps,
    AggregatedWorker,
    aggregated_state,
    empty_aggregated_pool,
    has_due_work,
    unfinished_requests,
)
from tune.sim.decode_batch import join, pass_time, retire
from tune.sim.decode_loop import generate, segment_of
from tune.sim.decode_pool import (
    BATCH,
    CONTEXT,
    EVICT_NEWEST,
    JUST_ENDED,
    LOAD,
    NOW,
    OUTSIDE,
    PEAK,
    RESERVED,
    STEP,
    DecodeQueue,
    DecodeState,
)
from tune.sim.prefill_loop import plan_chunks, read_chunks
from tune.sim.prefill_pool import BUSY, STEPS, PrefillQueue, PrefillTable
from tune.sim.queues import HEAD, UNASSIGNED, enqueue, least_loaded


@compiled
def serve_aggregated(
    limits: AggregatedWorker,
    slowdown: FloatArray,
    steps: AggregatedSteps,
    requests: AggregatedRequests,
    result: AggregatedResult,
) -> None:
    """Serve requests first come, first served, on one worker per entry of `slowdown`.

    Parameters
    ----------
    limits
        What each worker may do. A request must fit its empty cache, and its prompt the token budget if it is
        not chunked.
    slowdown
        Factor on the steps of each worker, shape (workers,).
    steps
        Step times of a worker.
    requests
        Requests in order of arrival.
    result
        Filled; its `answers.worker` says which requests are routed already.

    Notes
    -----
    Under EVICT_NEWEST, when the next step would not fit the cache, the newest request loses its cache: it is
    read again before any other, with what was answered until then. The least loaded worker has the fewest
    requests that were routed to it and are not done, at the moment of arrival.
    """
    count, workers, answers = len(requests.prompt), len(slowdown), result.answers
    queue = new_queue(steps.prompts, requests, answers.ready_s)
    follower = queue.answers.follower
    answers.ready_s[:] = requests.arrival_s
    answers.first_s[:] = -1.0
    pool = empty_aggregated_pool(slowdown, steps.answers, min(limits.answers.slots, count))
    for request in range(count + 1):  # the last turn serves to the end
        until_s = requests.arrival_s[request] if request < count else np.inf
        if request == count or answers.worker[request] == UNASSIGNED:
            for worker in range(workers):
                if has_due_work(pool, worker, until_s):
                    _serve(limits, queue, aggregated_state(pool, worker), result, until_s)
        if request == count:
            break
        if answers.worker[request] == UNASSIGNED:
            answers.worker[request] = least_loaded(unfinished_requests(pool, until_s), request % workers)
        worker = answers.worker[request]
        pool.answers.counters[worker, LOAD] += 1
        enqueue(pool.answers.waiting[worker], follower, request)
    enter_counts(pool, result)


@compiled
def new_queue(table: PrefillTable, requests: AggregatedRequests, ready_s: FloatArray) -> AggregatedQueue:
    """Return the state of requests of which nothing is read; `ready_s` (n,) receives their arrivals."""
    count = len(requests.prompt)
    follower, unused = np.full(count, UNASSIGNED, np.int64), np.zeros(0, np.int64)
    tokens, generated = requests.prompt.copy(), np.zeros(count, np.int64)
    prompts = PrefillQueue(
        requests.arrival_s, tokens, requests.arrival_s, tokens.copy(), follower, unused, table
    )
    answers = DecodeQueue(ready_s, requests.prompt, requests.answer, requests.reserved, follower, generated)
    return AggregatedQueue(prompts, answers)


@compiled
def enter_counts(pool: AggregatedPool, result: AggregatedResult) -> None:
    """Enter what the workers counted."""
    result.answers.usage[:] = pool.answers.clock_s[:, NOW + 1 :]
    result.answers.peak_tokens[:] = pool.answers.counters[:, PEAK]
    result.answers.steps[:, 0] = pool.answers.counters[:, STEP]
    result.answers.steps[:, 1] = pool.answers.counters[:, OUTSIDE]
    result.busy_s[:] = pool.prompts.clock_s[:, BUSY]
    result.steps[:] = pool.prompts.counters[:, STEPS:]


@compiled
def _serve(
    limits: AggregatedWorker,
    queue: AggregatedQueue,
    state: AggregatedState,
    result: AggregatedResult,
    until_s: float,
) -> None:
    """Run every step of one worker that starts before `until_s`."""
    counters, clock_s = state.answers.counters, state.answers.clock_s
    prompts = state.prompts.counters
    while clock_s[NOW] < until_s:
        admit(limits, queue, state, result.answers.start_s)
        if prompts[PROMPTS] == 0 and counters[BATCH] == 0:
            if state.answers.waiting[HEAD] == UNASSIGNED:
                return
            clock_s[NOW] = queue.answers.ready_s[state.answers.waiting[HEAD]]
            continue
        while lacks_room(limits, state):
            pause_newest(queue, state)
        planned = _plan(limits, queue, state)
        if planned > 0:
            _mixed_step(limits, queue, state, result, planned)
            continue
        # prompts that a full step leaves out get their turn after each step
        end_s = until_s if prompts[PROMPTS] == 0 else np.nextafter(clock_s[NOW], np.inf)
        generate(limits.answers, queue.answers, state.answers, result.answers, end_s)


@compiled
def _plan(limits: AggregatedWorker, queue: AggregatedQueue, state: AggregatedState) -> int:
    """Return how many prompts take part in the next step.

    A prompt that is read again is chunked where nothing else runs: it is longer than it was.
    """
    budget = limits.prompts.token_budget - state.answers.counters[BATCH]
    if state.prompts.counters[PROMPTS] == 0 or budget <= 0:
        return 0
    planned = plan_chunks(limits.prompts, queue.prompts, state.prompts, budget)
    if planned == 0 and state.answers.counters[BATCH] == 0:
        state.prompts.chunk[0] = min(queue.prompts.left[state.prompts.active[0]], budget)
        return 1
    return planned


@compiled
def _answers_attention_s(state: DecodeState) -> float:
    """Return the seconds in which a step reads the caches of the answers that it continues."""
    batch, context = state.counters[BATCH], state.counters[CONTEXT]
    if batch == 0:
        return 0.0
    steps = state.steps
    segment = segment_of(steps, batch, context)
    above_s = steps.batch_s[batch, segment] - steps.batch_s[batch, 0]
    return float(above_s + steps.token_s[batch, segment] * context)


@compiled
def _mixed_step(
    limits: AggregatedWorker,
    queue: AggregatedQueue,
    state: AggregatedState,
    result: AggregatedResult,
    planned: int,
) -> None:
    """Make a step that reads chunks of the `planned` oldest prompts and continues every answer."""
    prompts, answers = state.prompts, state.answers
    counters, begin_s = answers.counters, answers.clock_s[NOW]
    ended, work_s = read_chunks(limits.prompts, queue.prompts, prompts, planned, counters[BATCH])
    step_s = answers.slowdown * (work_s + _answers_attention_s(answers))
    pass_time(limits.answers, answers, step_s, counters[CONTEXT] + prompts.counters[HELD])
    end_s = answers.clock_s[NOW]
    prompts.clock_s[BUSY] += max(0.0, min(end_s, limits.prompts.window_s) - begin_s)
    counters[STEP] += 1
    counters[CONTEXT] += counters[BATCH]
    taken = counters[RESERVED]
    if limits.answers.policy == EVICT_NEWEST:
        taken = limits.answers.kv_tokens - room_left(limits, state)
    counters[PEAK] = max(counters[PEAK], taken)
    retire(queue.answers, answers, result.answers.done_s)
    if ended:
        _begin_answers(queue, state, result)


@compiled
def _begin_answers(queue: AggregatedQueue, state: AggregatedState, result: AggregatedResult) -> None:
    """Give the first token of every prompt that has ended, or the next one where it was read again."""
    prompts, answers = state.prompts, state.answers
    kept, now_s = 0, answers.clock_s[NOW]
    for slot in range(prompts.counters[PROMPTS]):
        request = prompts.active[slot]
        if queue.prompts.left[request] > 0:
            prompts.active[kept] = request
            kept += 1
            continue
        release(queue, state, request)
        queue.answers.generated[request] += 1
        if result.answers.first_s[request] < 0:
            result.answers.first_s[request] = now_s
        if queue.answers.generated[request] < queue.answers.answer[request]:
            join(queue.answers, answers, request)
            continue
        result.answers.done_s[request] = now_s
        answers.counters[JUST_ENDED] += 1
        answers.counters[LOAD] -= 1
    prompts.counters[PROMPTS] = kept
