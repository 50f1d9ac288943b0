"""Prompts made to length: token ids that no two queries share a beginning of."""

from __future__ import annotations

import json

import numpy as np

from tune.client.settings import ClientSettings

_LOWEST_ID, _ABOVE_IDS = 10_000, 30_000
"""Text tokens in any vocabulary of 30,000 and more; five digits each, so a slice of text is a prompt."""

_ID_BYTES = len("10000,")
_STARTS = 1 << 17
_STRIDE = 40_503
"""Odd, so that the starts of 131,072 queries in a row all differ."""


class Prompts:
    """Bodies of `POST /completions`, cut from one text of random token ids that `length_seed` decides.

    Two prompts differ from their first KV block on, so a prefix cache never answers for the prefill that the
    benchmark's distinct prompts would cost. Such a prompt has no natural answer: the engine is told to ignore
    its end-of-sequence token, and the answer is as long as `max_tokens`.
    """

    def __init__(self, settings: ClientSettings, longest_tokens: int) -> None:
        ids = np.random.RandomState(
            np.random.MT19937(np.random.SeedSequence(settings.load.length_seed))
        ).randint(_LOWEST_ID, _ABOVE_IDS, _STARTS + longest_tokens)
        self._text = (",".join(map(str, ids.tolist())) + ",").encode()
        head = {
            "model": settings.served_model_name,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            "top_k": 1,
            "ignore_eos": True,
            # Dynamo before CommonExt (mid-2025) reads these two from nvext alone.
            "nvext": {"top_k": 1, "ignore_eos": True},
        }
        self._head = json.dumps(head, separators=(",", ":"))[:-1].encode()

    def body(self, position: int, input_tokens: int, output_tokens: int) -> bytes:
        """JSON that asks for `output_tokens` after a prompt of `input_tokens`, always the same."""
        start = position * _STRIDE % _STARTS * _ID_BYTES
        prompt = self._text[start : start + input_tokens * _ID_BYTES - 1]
        return b'%b,"max_tokens":%d,"prompt":[%b]}' % (self._head, output_tokens, prompt)
