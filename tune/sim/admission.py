"""Which requests the engines accept at all, and how much cache each may come to need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import IntArray
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.spec.memory import reserved_tokens
from tune.spec.trial import TrialSpec


def rejections(spec: TrialSpec, prompt: IntArray, most: IntArray) -> NDArray[np.str_]:
    """Why no engine would accept a request, shape (n,); empty where they do. `most` as `reserved` has it."""
    longest = min(spec.prefill.max_sequence_tokens, spec.decode.max_sequence_tokens) - 1
    prefill_kv = kv_capacity_tokens(spec, "prefill")
    decode_kv = kv_capacity_tokens(spec, "decode")
    budget, names = spec.prefill.token_budget, spec.prefill.KEYS
    whole = not spec.prefill.chunks_prompts
    reasons = (
        (
            prompt > longest,
            f"prompt over {longest} tokens, which {names['max_sequence_tokens']} leaves for it",
        ),
        (
            whole & (prompt > budget),
            f"prompt over prefill.{names['token_budget']} {budget} without chunked prefill",
        ),
        (prompt > prefill_kv, f"prompt over the {prefill_kv} tokens of a prefill worker's KV cache"),
        (
            reserved_kv_tokens(spec, prompt, most) > decode_kv,
            f"request over the {decode_kv} tokens of a decode worker's KV cache",
        ),
    )
    if not any(holds.any() for holds, _ in reasons):
        return np.zeros(len(prompt), "U1")
    return np.select([holds for holds, _ in reasons], [text for _, text in reasons], "")


def reserved_kv_tokens(spec: TrialSpec, prompt: IntArray, most: IntArray) -> IntArray:
    """KV tokens that each prompt and an answer of the `most` tokens its request allows take, shape (n,)."""
    return reserved_tokens(prompt, most, spec.decode)


def answers(spec: TrialSpec, prompt: IntArray, answer: IntArray) -> IntArray:
    """Tokens really answered, shape (n,): max_seq_len ends an answer early, but its first token comes."""
    return np.clip(answer, 1, np.maximum(spec.decode.max_sequence_tokens - prompt, 1))
