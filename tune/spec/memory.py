"""Estimate the GPU memory of weights, a token and a sequence, for any engine."""

from __future__ import annotations

import math
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

_FP8_DS_MLA_BYTES = 512 + 4 * 4 + 64 * 2
"""Bytes of a token in a layer of DeepSeek's compressed KV cache as fp8_ds_mla: 512 numbers in FP8, four
scales in FP32, and 64 numbers for the position in BF16. Source: deepseek-ai/FlashMLA, README.md, "FP8 KV
Cache"."""


def weight_bytes_per_gpu(model: Model, engine: Engine) -> float:
    """Return the most bytes of weights on a GPU: the checkpoint, sharded over the worker's GPUs.

    In a model whose experts have sizes, whole experts are divided over EP groups, and each over the ranks of
    a group; with attention data parallelism every rank has all other weights: attention, dense layers, shared
    experts and embeddings. MTP layers are counted whether or not they are used. With context parallelism this
    is the least: attention weights are held once in every group.

    Sources: TensorRT-LLM, mapping.py (moe_tp_size x moe_ep_size = tp_size; Helix) and
    _torch/models/modeling_deepseekv3.py (TP of 1 for dense layers and shared experts).
    """
    if not model.expert_bytes:
        return model.checkpoint_bytes / engine.gpus
    ranks, groups = engine.tensor_parallel * engine.context_parallel, engine.expert_parallel
    experts = model.experts or 1
    on_rank = math.ceil(experts / groups) / experts * groups / ranks
    others = max(model.checkpoint_bytes - model.expert_bytes, 0.0)
    shared = others if engine.attends_by_rank else others / ranks
    return (model.expert_bytes * on_rank + shared) / engine.pipeline_stages


def kv_bytes_per_token(model: Model, engine: Engine) -> int:
    """Return the bytes of KV cache per token over the whole worker: K and V of every layer and KV head.

    Above `kv_heads` ranks the heads are replicated, as the one head of MLA is on every rank; with attention
    data parallelism a token is on one rank alone. Layers with a sliding window are counted as all others:
    what an engine frees behind the window is not relied on. Llama-3.1-405B in fp8 takes 258,048 bytes.

    Sources: DeepSeek-V2, arXiv 2405.04434, section 2.1 (a token's cache with MLA); TensorRT-LLM,
    _torch/modules/attention.py.
    """
    heads = model.kv_heads if engine.attends_by_rank else max(model.kv_heads, engine.tensor_parallel)
    if engine.kv_dtype == "fp8_ds_mla":
        return model.layers * heads * _FP8_DS_MLA_BYTES
    dtype = model.kv_dtype or "auto" if engine.kv_dtype == "auto" else engine.kv_dtype
    element = _KV_ELEMENT_BYTES[dtype]
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
