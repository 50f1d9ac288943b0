"""Make the prompts of a run: random ones without common beginnings, or the benchmark's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from tune.client.schedule import Schedule
from tune.client.vocabulary import ONE_TOKEN_WORDS
from tune.core.arrays import IntArray
from tune.spec.load import Load
from tune.workload.lengths import draw_rows
from tune.workload.mlperf_pickle import read_pickle_ids, read_pickle_texts

PromptSource = Callable[[int, int], bytes]
"""Takes a position in the schedule and a number of tokens, returns the prompt as JSON: ids or a text."""

_MIN_TOKEN_ID, _TOKEN_ID_LIMIT = 10_000, 30_000
"""Ids of text in any vocabulary of 30,000 tokens and more.

All have five digits, so a slice of text is a prompt.
"""

_START_POSITIONS = 1 << 17
_START_STRIDE = 40_503
"""Odd, so that the starts of 131,072 queries in a row all differ."""

_RUN_SEED_STRIDE = 2_000_003
"""Added to the shuffle seed for each earlier run of a deployment: far from the seeds that people choose."""

_COMMON_FIELDS = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0,
    "top_k": 1,
}
_IGNORE_EOS = {"ignore_eos": True}


class Prompts:
    """Build the bodies of the requests to the API that `load` names, one for each position in `schedule`.

    A prompt made to length has no natural answer: the request tells the engine to ignore its end-of-sequence
    token, and the answer has `max_tokens` tokens. The benchmark's own prompts are answered to their natural
    end. `earlier_runs` and `nvext` are those of tune.client.client_settings.ClientRun. `rows` says which of
    them each position sends; None for the order that the load draws.
    """

    def __init__(
        self,
        model: str,
        load: Load,
        schedule: Schedule,
        *,
        nvext: bool = False,
        earlier_runs: int = 0,
        rows: IntArray | None = None,
    ) -> None:
        self._schedule = schedule
        longest = int(schedule.input_tokens.max(initial=1))
        fields = _COMMON_FIELDS | {"model": model}
        if load.dataset.holds_prompts:
            if rows is None:
                rows = draw_rows(load.dataset, len(schedule), load.shuffle_seed, stratified=load.is_short_run)
            self._prompt_at = recorded_prompts(load, rows)
        else:
            fields |= _IGNORE_EOS
            make = random_id_prompts if load.api == "completions" else random_text_prompts
            self._prompt_at = make(load.shuffle_seed + _RUN_SEED_STRIDE * earlier_runs, longest)
        if nvext:
            fields |= {"nvext": {name: fields[name] for name in ("top_k", "ignore_eos") if name in fields}}
        self._fields_json = _compact(fields)[:-1]
        self._prefix, self._suffix = b'"prompt":', b"}"
        if load.api == "chat":
            self._prefix, self._suffix = b'"messages":[{"role":"user","content":', b"}]}"

    def body(self, position: int) -> bytes:
        """Return the JSON of the request at `position`; equal positions have equal bytes."""
        prompt = self._prompt_at(position, int(self._schedule.input_tokens[position]))
        max_tokens = int(self._schedule.max_output_tokens[position])
        return b'%b,"max_tokens":%d,%b%b%b' % (
            self._fields_json,
            max_tokens,
            self._prefix,
            prompt,
            self._suffix,
        )


def random_id_prompts(shuffle_seed: int, longest_tokens: int) -> PromptSource:
    """Return prompts of token ids, cut from one row of random ids that `shuffle_seed` determines.

    Two prompts differ from their first KV block on, so a prefix cache never saves the prefill that the
    benchmark's distinct prompts cost.
    """
    ids = _random(shuffle_seed).randint(_MIN_TOKEN_ID, _TOKEN_ID_LIMIT, _START_POSITIONS + longest_tokens)
    row = ",".join(map(str, ids.tolist())).encode() + b","
    return lambda position, tokens: b"[%b]" % _slice(row, len("10000,"), position, tokens)


def random_text_prompts(shuffle_seed: int, longest_tokens: int) -> PromptSource:
    """Return prompts of words, each one token, cut from one row of words that `shuffle_seed` determines.

    Two prompts differ from their first KV block on. The server adds the tokens of its chat template.
    """
    word_indices = _random(shuffle_seed).randint(0, len(ONE_TOKEN_WORDS), _START_POSITIONS + longest_tokens)
    row = " ".join(ONE_TOKEN_WORDS[index] for index in word_indices.tolist()).encode() + b" "
    return lambda position, tokens: b'"%b"' % _slice(row, len("word "), position, tokens)


def recorded_prompts(load: Load, rows: IntArray) -> PromptSource:
    """Return the prompts of the benchmark's pickle, at each position that of its row in `rows`.

    Raises ConfigurationError for a file that cannot be used.
    """
    prompt_rows: Sequence[object] = (
        read_pickle_ids(load.dataset) if load.api == "completions" else read_pickle_texts(load.dataset)
    )
    prompts = [_compact(row) for row in prompt_rows]
    row_of = rows.tolist()
    return lambda position, _: prompts[row_of[position]]


def _random(shuffle_seed: int) -> np.random.RandomState:
    """Return the random generator of `shuffle_seed`."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(shuffle_seed)))


def _slice(row: bytes, unit_bytes: int, position: int, tokens: int) -> bytes:
    """Return the units from the start of `position` on, without the separator behind the last."""
    start = position * _START_STRIDE % _START_POSITIONS * unit_bytes
    return row[start : start + tokens * unit_bytes - 1]


def _compact(value: object) -> bytes:
    """Return `value` as JSON without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()
