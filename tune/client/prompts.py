"""What is asked: prompts made to length that no two queries share a beginning of, or the benchmark's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from tune.client.schedule import Schedule
from tune.client.vocabulary import ONE_TOKEN_WORDS
from tune.spec.load import Load
from tune.workload.lengths import draw_rows
from tune.workload.mlperf_pickle import read_pickle_ids, read_pickle_texts

Source = Callable[[int, int], bytes]
"""The JSON of the prompt at a position in the schedule, of so many tokens: a list of ids, or a text."""

_LOWEST_ID, _ABOVE_IDS = 10_000, 30_000
"""Text tokens in any vocabulary of 30,000 and more; five digits each, so a slice of text is a prompt."""

_STARTS = 1 << 17
_STRIDE = 40_503
"""Odd, so that the starts of 131,072 queries in a row all differ."""

_RUNS_APART = 2_000_003
"""Added to the length seed for each earlier run of a deployment: far from the seeds that people take."""

_HEAD = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0,
    "top_k": 1,
}
_TO_THE_LAST_TOKEN = {"ignore_eos": True}


class Prompts:
    """Bodies of the requests to the API that `load` names, one a position in `schedule`.

    A prompt made to length has no natural answer: the engine is told to ignore its end-of-sequence token, and
    the answer is as long as `max_tokens`. After the benchmark's own prompts the engine ends when it likes.
    `earlier_runs`, `nvext`: as in ClientSettings.
    """

    def __init__(
        self, model: str, load: Load, schedule: Schedule, *, nvext: bool = False, earlier_runs: int = 0
    ) -> None:
        self._schedule = schedule
        longest = int(schedule.input_tokens.max(initial=1))
        head = _HEAD | {"model": model}
        if load.dataset.holds_prompts:
            self._source = recorded_prompts(load, len(schedule))
        else:
            head |= _TO_THE_LAST_TOKEN
            make = made_ids if load.api == "completions" else made_texts
            self._source = make(load.shuffle_seed + _RUNS_APART * earlier_runs, longest)
        if nvext:
            head |= {"nvext": {name: head[name] for name in ("top_k", "ignore_eos") if name in head}}
        self._head = _compact(head)[:-1]
        self._before, self._after = b'"prompt":', b"}"
        if load.api == "chat":
            self._before, self._after = b'"messages":[{"role":"user","content":', b"}]}"

    def body(self, position: int) -> bytes:
        """JSON that asks the query at `position`, always the same."""
        prompt = self._source(position, int(self._schedule.input_tokens[position]))
        most = int(self._schedule.most_tokens[position])
        return b'%b,"max_tokens":%d,%b%b%b' % (self._head, most, self._before, prompt, self._after)


def made_ids(shuffle_seed: int, longest_tokens: int) -> Source:
    """Token ids, cut from one row of random ones that `shuffle_seed` decides.

    Two prompts differ from their first KV block on, so a prefix cache never answers for the prefill that the
    benchmark's distinct prompts would cost.
    """
    ids = _random(shuffle_seed).randint(_LOWEST_ID, _ABOVE_IDS, _STARTS + longest_tokens)
    row = ",".join(map(str, ids.tolist())).encode() + b","
    return lambda position, tokens: b"[%b]" % _slice(row, len("10000,"), position, tokens)


def made_texts(shuffle_seed: int, longest_tokens: int) -> Source:
    """Texts, cut as `made_ids` cuts ids from words of one token each; the server's template comes on top."""
    chosen = _random(shuffle_seed).randint(0, len(ONE_TOKEN_WORDS), _STARTS + longest_tokens)
    row = " ".join(ONE_TOKEN_WORDS[index] for index in chosen.tolist()).encode() + b" "
    return lambda position, tokens: b'"%b"' % _slice(row, len("word "), position, tokens)


def recorded_prompts(load: Load, queries: int) -> Source:
    """The prompts of the benchmark's pickle in the order of the run. Raises ConfigurationError for a bad file."""
    rows: Sequence[object] = (
        read_pickle_ids(load.dataset) if load.api == "completions" else read_pickle_texts(load.dataset)
    )
    prompts = [_compact(row) for row in rows]
    order = draw_rows(load.dataset, queries, load.shuffle_seed, stratified=load.is_short_run).tolist()
    return lambda position, _: prompts[order[position]]


def _random(shuffle_seed: int) -> np.random.RandomState:
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(shuffle_seed)))


def _slice(row: bytes, unit_bytes: int, position: int, tokens: int) -> bytes:
    start = position * _STRIDE % _STARTS * unit_bytes
    return row[start : start + tokens * unit_bytes - 1]


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
