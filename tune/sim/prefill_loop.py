"""The serving loop of one prefill worker: prompts, whole or in chunks, share a token budget step by step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tune.results.requests import FloatArray, IntArray
from tune.sim.compiled import compiled

_HEAD, _BATCH, _ENDED, _RELEASED, _FREE = range(5)
_NOW, _BUSY = range(2)


class PrefillWorker(NamedTuple):
    """What one worker may do. A step takes step + token x new tokens + pair x attended pairs seconds.

    `fill_steps`: further pipeline stages that the last step of a prompt passes. `window_s`: use is counted
    up to here.
    """

    max_batch_size: int
    max_num_tokens: int
    kv_tokens: int
    chunked: bool
    equal_progress: bool
    static_batch: bool
    step_s: float
    token_s: float
    pair_s: float
    fill_steps: int
    window_s: float


class Prompts(NamedTuple):
    """Prompts of one worker in order of arrival, with the length of their KV transfer. Shape (n,)."""

    arrival_s: FloatArray
    tokens: IntArray
    transfer_s: FloatArray


class _State(NamedTuple):
    """`active` holds prompts oldest first, `chunk` their tokens in this step, `left` what every prompt lacks.

    `ended` lists finished prompts, `number` (5,) and `clock_s` (2,) hold the counters and sums named above.
    """

    active: IntArray
    chunk: IntArray
    left: IntArray
    ended: IntArray
    number: IntArray
    clock_s: FloatArray


@compiled
def prefill(worker: PrefillWorker, prompts: Prompts, start_s: FloatArray, done_s: FloatArray) -> float:
    """Serve `prompts` first come, first served; writes start and end of each prefill, shape (n,).

    A prompt holds its KV cache from admission until its transfer is over, released in order of completion.
    It must fit the empty cache, and max_num_tokens where prompts are not chunked. Returns the seconds of the
    window in which the worker was busy.
    """
    count = len(prompts.tokens)
    size = min(worker.max_batch_size, count)
    state = _State(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        prompts.tokens.copy(),
        np.zeros(count, np.int64),
        np.zeros(5, np.int64),
        np.zeros(2),
    )
    number, clock_s = state.number, state.clock_s
    number[_FREE] = worker.kv_tokens
    while number[_HEAD] < count or number[_BATCH] > 0:
        _release(prompts, state, done_s)
        _admit(worker, prompts, state, start_s)
        if number[_BATCH] > 0:
            planned = _plan(worker, state)
            ended, duration_s = _step(worker, prompts, state, planned)
            if ended:
                _finish(state, done_s, worker.fill_steps * duration_s)
        elif prompts.arrival_s[number[_HEAD]] > clock_s[_NOW]:
            clock_s[_NOW] = prompts.arrival_s[number[_HEAD]]
        else:
            clock_s[_NOW] = _release_s(prompts, state, done_s)
    return float(clock_s[_BUSY])


@compiled
def _release_s(prompts: Prompts, state: _State, done_s: FloatArray) -> float:
    oldest = state.ended[state.number[_RELEASED]]
    return float(done_s[oldest] + prompts.transfer_s[oldest])


@compiled
def _release(prompts: Prompts, state: _State, done_s: FloatArray) -> None:
    number = state.number
    while number[_RELEASED] < number[_ENDED] and _release_s(prompts, state, done_s) <= state.clock_s[_NOW]:
        number[_FREE] += prompts.tokens[state.ended[number[_RELEASED]]]
        number[_RELEASED] += 1


@compiled
def _admit(worker: PrefillWorker, prompts: Prompts, state: _State, start_s: FloatArray) -> None:
    number, now_s = state.number, state.clock_s[_NOW]
    if worker.static_batch and number[_BATCH] > 0:
        return
    while number[_HEAD] < len(prompts.tokens) and number[_BATCH] < len(state.active):
        prompt = number[_HEAD]
        if prompts.arrival_s[prompt] > now_s or prompts.tokens[prompt] > number[_FREE]:
            return
        state.active[number[_BATCH]] = prompt
        start_s[prompt] = now_s
        number[_FREE] -= prompts.tokens[prompt]
        number[_BATCH] += 1
        number[_HEAD] += 1


@compiled
def _plan(worker: PrefillWorker, state: _State) -> int:
    """Tokens of the active prompts in the next step, within max_num_tokens; returns how many take part.

    EQUAL_PROGRESS deals every prompt the same share first; what is left over goes in order of arrival.
    """
    batch, budget = state.number[_BATCH], worker.max_num_tokens
    share = budget // batch if worker.chunked and worker.equal_progress else 0
    dealt = 0
    for slot in range(batch if share > 0 else 0):
        state.chunk[slot] = min(state.left[state.active[slot]], share)
        dealt += state.chunk[slot]
    budget -= dealt
    for slot in range(batch):
        given = state.chunk[slot] if share > 0 else 0
        wanted = state.left[state.active[slot]] - given
        if share == 0 and (budget == 0 or (wanted > budget and not worker.chunked)):
            return slot
        taken = min(wanted, budget)
        state.chunk[slot] = given + taken
        budget -= taken
    return int(batch)


@compiled
def _step(worker: PrefillWorker, prompts: Prompts, state: _State, planned: int) -> tuple[bool, float]:
    """Run the step of the `planned` oldest prompts; returns whether any of them ended, and its seconds."""
    total, pairs, ended = 0, 0.0, False
    for slot in range(planned):
        new, prompt = state.chunk[slot], state.active[slot]
        total += new
        pairs += new * (prompts.tokens[prompt] - state.left[prompt] + new / 2)
        state.left[prompt] -= new
        ended = ended or state.left[prompt] == 0
    duration_s = worker.step_s + worker.token_s * total + worker.pair_s * pairs
    now_s = state.clock_s[_NOW]
    state.clock_s[_BUSY] += max(0.0, min(now_s + duration_s, worker.window_s) - now_s)
    state.clock_s[_NOW] = now_s + duration_s
    return ended, duration_s


@compiled
def _finish(state: _State, done_s: FloatArray, fill_s: float) -> None:
    """Take out prompts that are done, `fill_s` from now; the others keep their order."""
    number = state.number
    kept = 0
    for slot in range(number[_BATCH]):
        prompt = state.active[slot]
        if state.left[prompt] > 0:
            state.active[kept] = prompt
            kept += 1
            continue
        done_s[prompt] = state.clock_s[_NOW] + fill_s
        state.ended[number[_ENDED]] = prompt
        number[_ENDED] += 1
    number[_BATCH] = kept
