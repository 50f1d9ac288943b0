"""The serving loop of one decode worker: steps between two changes of the batch are summed in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tune.results.requests import FloatArray, IntArray
from tune.sim.compiled import compiled
from tune.spec.engine import KV_BLOCK_TOKENS

GUARANTEED_NO_EVICT, MAX_UTILIZATION, STATIC_BATCH = 0, 1, 2

_STEP, _CONTEXT, _PROMISED, _HEAD, _BATCH, _PAUSED, _PEAK = range(7)


class DecodeWorker(NamedTuple):
    """What one worker may do. A step takes batch_s[batch] + context_token x total context seconds.

    The recompute figures are those of a prefill on this engine, in chunks of max_num_tokens. `window_s`: use
    is counted up to here.
    """

    policy: int
    slots: int
    kv_tokens: int
    context_token_s: float
    max_num_tokens: int
    recompute_step_s: float
    recompute_token_s: float
    recompute_pair_s: float
    window_s: float


class Requests(NamedTuple):
    """Requests of one worker in order of `ready_s`; `reserved`: cache tokens promised to each. Shape (n,)."""

    ready_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray


class Served(NamedTuple):
    """Written by the loop: when each request got its slot, its first and its last token (n,).

    `use` (2,): integrals over the window of the batch size and of the cache tokens in use.
    """

    start_s: FloatArray
    first_s: FloatArray
    done_s: FloatArray
    use: FloatArray


class _State(NamedTuple):
    """`active` holds requests oldest first, `finish` the step after which each is done, `paused` is a stack.

    `number` (7,) holds the counters named above, `clock_s` (1,) the time, `made` the tokens a paused request
    has answered.
    """

    active: IntArray
    finish: IntArray
    paused: IntArray
    made: IntArray
    number: IntArray
    clock_s: FloatArray


@compiled
def decode(worker: DecodeWorker, batch_s: FloatArray, requests: Requests, served: Served) -> int:
    """Serve `requests` first come, first served; `batch_s` has shape (slots + 1,). Fills `served`.

    Under MAX_UTILIZATION, when the next step would not fit the cache, the youngest sequence is paused: it
    loses its cache, comes back before any other, and its recompute holds up the whole batch. A request must
    fit the empty cache. Returns the most cache tokens ever taken, whole blocks or promises included.
    """
    count = len(requests.ready_s)
    size = min(worker.slots, count)
    state = _State(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(count, np.int64),
        np.zeros(7, np.int64),
        np.zeros(1),
    )
    number = state.number
    served.first_s[:] = -1.0
    while number[_HEAD] < count or number[_BATCH] > 0 or number[_PAUSED] > 0:
        fresh = number[_BATCH]
        _resume(worker, requests, state, served)
        _admit(worker, requests, state, served)
        if number[_BATCH] == 0:
            state.clock_s[0] = requests.ready_s[number[_HEAD]]
            continue
        while worker.policy == MAX_UTILIZATION and _room(worker, state) < number[_BATCH]:
            _pause(requests, state)
        step_s = batch_s[number[_BATCH]] + worker.context_token_s * number[_CONTEXT]
        for slot in range(fresh, number[_BATCH]):
            if served.first_s[state.active[slot]] < 0:
                served.first_s[state.active[slot]] = state.clock_s[0] + step_s
        _advance(worker, _steps(worker, requests, state, step_s), step_s, state, served)
        _retire(requests, state, served)
    return int(number[_PEAK])


@compiled
def _room(worker: DecodeWorker, state: _State) -> int:
    """Cache tokens left when every sequence wastes as much of its last block as it can."""
    slack = (KV_BLOCK_TOKENS - 1) * state.number[_BATCH]
    return int(worker.kv_tokens - state.number[_CONTEXT] - slack)


@compiled
def _fits(worker: DecodeWorker, requests: Requests, state: _State, request: int) -> bool:
    """Whether a slot and the cache are free: for the whole answer, or under MAX_UTILIZATION for a step."""
    batch = state.number[_BATCH]
    if batch >= len(state.active):
        return False
    if worker.policy == MAX_UTILIZATION:
        context = requests.prompt[request] + state.made[request]
        return bool(_room(worker, state) - context - (KV_BLOCK_TOKENS - 1) >= batch + 1)
    return bool(state.number[_PROMISED] + requests.reserved[request] <= worker.kv_tokens)


@compiled
def _join(requests: Requests, state: _State, request: int) -> None:
    number = state.number
    state.active[number[_BATCH]] = request
    state.finish[number[_BATCH]] = number[_STEP] + requests.answer[request] - state.made[request]
    number[_CONTEXT] += requests.prompt[request] + state.made[request]
    number[_PROMISED] += requests.reserved[request]
    number[_BATCH] += 1


@compiled
def _resume(worker: DecodeWorker, requests: Requests, state: _State, served: Served) -> None:
    """Bring paused requests back, the oldest first, at the price of computing their cache again."""
    number = state.number
    while number[_PAUSED] > 0:
        request = state.paused[number[_PAUSED] - 1]
        if not _fits(worker, requests, state, request):
            return
        number[_PAUSED] -= 1
        tokens = requests.prompt[request] + state.made[request]
        chunks = -(-tokens // worker.max_num_tokens)
        pairs = tokens * (tokens / 2)
        lost_s = worker.recompute_step_s * chunks + worker.recompute_token_s * tokens
        _pass_time(worker, lost_s + worker.recompute_pair_s * pairs, number[_CONTEXT], state, served)
        _join(requests, state, request)


@compiled
def _admit(worker: DecodeWorker, requests: Requests, state: _State, served: Served) -> None:
    """Let arrived requests join, in order; STATIC_BATCH lets them join only an empty engine."""
    number = state.number
    if number[_PAUSED] > 0 or (worker.policy == STATIC_BATCH and number[_BATCH] > 0):
        return
    while number[_HEAD] < len(requests.ready_s):
        request = number[_HEAD]
        if requests.ready_s[request] > state.clock_s[0] or not _fits(worker, requests, state, request):
            return
        served.start_s[request] = state.clock_s[0]
        _join(requests, state, request)
        number[_HEAD] += 1


@compiled
def _pause(requests: Requests, state: _State) -> None:
    number = state.number
    number[_BATCH] -= 1
    request = state.active[number[_BATCH]]
    state.made[request] = requests.answer[request] - (state.finish[number[_BATCH]] - number[_STEP])
    number[_CONTEXT] -= requests.prompt[request] + state.made[request]
    number[_PROMISED] -= requests.reserved[request]
    state.paused[number[_PAUSED]] = request
    number[_PAUSED] += 1


@compiled
def _steps(worker: DecodeWorker, requests: Requests, state: _State, step_s: float) -> int:
    """Steps until the batch can change: an answer ends, a request that fits arrives, or the cache is full."""
    number = state.number
    batch, head = number[_BATCH], number[_HEAD]
    steps = state.finish[:batch].min() - number[_STEP]
    if worker.policy == MAX_UTILIZATION:
        steps = min(steps, _room(worker, state) // batch)
    joins = number[_PAUSED] == 0 and worker.policy != STATIC_BATCH and head < len(requests.ready_s)
    if joins and _fits(worker, requests, state, head):
        # smallest m with m x step + growth x m (m - 1) / 2 >= wait, each step longer by `growth`
        wait_s = requests.ready_s[head] - state.clock_s[0]
        growth_s = worker.context_token_s * batch
        linear_s = step_s - growth_s / 2
        root = 2 * wait_s / (linear_s + math.sqrt(linear_s * linear_s + 2 * growth_s * wait_s))
        steps = min(steps, max(1, math.ceil(root)))
    return int(steps)


@compiled
def _advance(worker: DecodeWorker, steps: int, step_s: float, state: _State, served: Served) -> None:
    number = state.number
    batch = number[_BATCH]
    growth_s = worker.context_token_s * batch
    mean_context = number[_CONTEXT] + batch * ((steps + 1) / 2)
    _pass_time(worker, steps * step_s + growth_s * (steps * (steps - 1) / 2), mean_context, state, served)
    number[_STEP] += steps
    number[_CONTEXT] += batch * steps
    taken = number[_PROMISED]
    if worker.policy == MAX_UTILIZATION:
        taken = worker.kv_tokens - _room(worker, state)
    number[_PEAK] = max(number[_PEAK], taken)


@compiled
def _pass_time(
    worker: DecodeWorker, duration_s: float, context: float, state: _State, served: Served
) -> None:
    now_s = state.clock_s[0]
    counted_s = max(0.0, min(now_s + duration_s, worker.window_s) - now_s)
    served.use[0] += counted_s * state.number[_BATCH]
    served.use[1] += counted_s * context
    state.clock_s[0] = now_s + duration_s


@compiled
def _retire(requests: Requests, state: _State, served: Served) -> None:
    """Take out answers that are done; the others keep their order, so that the last is the youngest."""
    number = state.number
    kept = 0
    for slot in range(number[_BATCH]):
        request = state.active[slot]
        if state.finish[slot] > number[_STEP]:
            state.active[kept] = request
            state.finish[kept] = state.finish[slot]
            kept += 1
            continue
        served.done_s[request] = state.clock_s[0]
        number[_CONTEXT] -= requests.prompt[request] + requests.answer[request]
        number[_PROMISED] -= requests.reserved[request]
    number[_BATCH] = kept
