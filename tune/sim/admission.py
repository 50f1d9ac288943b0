"""Decide which requests the engines accept, and how much KV cache each may need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import IntArray
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.spec.memory import reserved_tokens
from tune.spec.trial import TrialSpec


def rejections(spec: TrialSpec, prompt: IntArray, max_answer: IntArray) -> NDArray[np.str_]:
    """Return why an engine rejects each request, shape (n,); empty where it is accepted.

    `prompt` and `max_answer` (n,) count tokens; the latter is the longest answer that a request allows.
    """
    longest = min(spec.prefill.max_sequence_tokens, spec.decode.max_sequence_tokens) - 1
    prefill_kv = kv_capacity_tokens(spec, "prefill")
    decode_kv = kv_capacity_tokens(spec, "decode")
    reading, generating = spec.pools[0].role, spec.pools[-1].role
    budget, names = spec.prefill.token_budget, spec.prefill.KEYS
    whole = not spec.prefill.chunks_prompts
    reasons = (
        (
            prompt > longest,
            f"prompt over {longest} tokens, which {names['max_sequence_tokens']} leaves for it",
        ),
        (
            whole & (prompt > budget),
            f"prompt over {reading}.{names['token_budget']} {budget} without chunked prefill",
        ),
        (prompt > prefill_kv, f"prompt over the {prefill_kv} tokens of a prefill worker's KV cache"),
        (
            reserved_kv_tokens(spec, prompt, max_answer) > decode_kv,
            f"request over the {decode_kv} tokens of a {generating} worker's KV cache",
        ),
    )
    if not any(applies.any() for applies, _ in reasons):
        return np.zeros(len(prompt), "U1")
    return np.select([applies for applies, _ in reasons], [text for _, text in reasons], "")


def reserved_kv_tokens(spec: TrialSpec, prompt: IntArray, max_answer: IntArray) -> IntArray:
    """Return the KV tokens that each prompt and its longest allowed answer take, shape (n,)."""
    return reserved_tokens(prompt, max_answer, spec.decode)


def answered_tokens(spec: TrialSpec, prompt: IntArray, answer: IntArray) -> IntArray:
    """Return the tokens that are answered, shape (n,): sequences end at their longest, not before a token."""
    return np.clip(answer, 1, np.maximum(spec.decode.max_sequence_tokens - prompt, 1))
