"""Estimate the GPU memory of weights, a token and a sequence, for any engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune.spec.engine import Engine, KvDtype
from tune.spec.model import Model

_KV_ELEMENT_BYTES: dict[KvDtype, float] = {
    "nvfp4": 9 / 16,
    "fp8": 1,
    "auto": 2,
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
}
"""Bytes of a number of the KV cache. NVFP4 takes half a byte, and 16 numbers share a scale of one byte.
Source: NVIDIA, "Introducing NVFP4 for efficient and accurate low-precision inference"."""


def weight_bytes_per_gpu(model: Model, engine: Engine) -> float:
    """Return the bytes of weights on each GPU: the checkpoint, sharded over the worker's GPUs.

    With context parallelism this is the least: feed-forward weights are sharded so, attention weights are
    held once in every group. Source: TensorRT-LLM, mapping.py (Helix).
    """
    return model.checkpoint_bytes / engine.gpus


def kv_bytes_per_token(model: Model, engine: Engine) -> int:
    """Return the bytes of KV cache per token over the whole worker: K and V of every layer and KV head.

    Above `kv_heads` ranks the heads are replicated. Llama-3.1-405B in fp8 takes 258,048 bytes.
    """
    heads = max(model.kv_heads, engine.tensor_parallel)
    element = _KV_ELEMENT_BYTES[engine.kv_dtype]
    return int(2 * model.layers * heads * model.head_size * element)


def reserved_tokens(
    prompt_tokens: NDArray[np.int64], answer_tokens: int | NDArray[np.int64], engine: Engine
) -> NDArray[np.int64]:
    """Return the KV tokens that a prompt and its whole answer take on a worker of `engine`.

    Parameters
    ----------
    prompt_tokens
        Tokens of each prompt, of any shape.
    answer_tokens
        Tokens of the answers: one number, or an array of the prompts' shape.
    engine
        Limits the length of a sequence and sets the size of a block.

    Returns
    -------
    Whole blocks, in tokens, of the prompts' shape.
    """
    block = engine.kv_block_tokens
    tokens: NDArray[np.int64] = np.minimum(prompt_tokens + answer_tokens, engine.max_sequence_tokens)
    return -(-tokens // block) * block


@dataclass(frozen=True)
class MeanSequence:
    """Hold the mean tokens of prompts and answers, and the tokens of the longest answer."""

    prompt_tokens: float
    answer_tokens: float
    longest_answer_tokens: int


def mean_sequences_that_fit(capacity_tokens: int, engine: Engine, mean: MeanSequence) -> int:
    """Return the most sequences of mean length that a KV cache holds at once.

    A sequence takes its longest answer where that is reserved, else half of a mean answer: it grows from
    nothing to the whole.

    Parameters
    ----------
    capacity_tokens
        Tokens of the KV cache of one worker.
    engine
        Says whether answers are reserved.
    mean
        Lengths of prompts and answers.

    Returns
    -------
    int
        Number of sequences, rounded down; 0 where not even one fits.
    """
    reserves = engine.batching == "reserve_answers"
    answer = float(mean.longest_answer_tokens) if reserves else mean.answer_tokens / 2
    return int(capacity_tokens // (mean.prompt_tokens + answer))
