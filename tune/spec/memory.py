"""What fits in a worker's GPU memory: weights, activations, CUDA graphs, transfer buffers, KV cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune.spec.engine import CUDA_GRAPH_BYTES, KV_BLOCK_TOKENS, Engine, KvDtype
from tune.spec.hardware import Hardware
from tune.spec.load import Dataset
from tune.spec.model import Model

RUNTIME_BYTES = 4e9
"""CUDA context, NCCL and kernel workspaces on each GPU. Assumption."""

_BF16_BYTES, _FP32_BYTES = 2, 4
_KV_ELEMENT_BYTES: dict[KvDtype, int] = {"fp8": 1, "auto": 2, "bfloat16": 2, "float16": 2}


def weight_bytes_per_gpu(model: Model, engine: Engine) -> float:
    """Bytes of weights on each GPU: the checkpoint, sharded over the worker's GPUs."""
    return model.checkpoint_bytes / engine.gpus


def kv_bytes_per_token(model: Model, engine: Engine) -> int:
    """Bytes of KV cache per token over the whole worker: K and V of every layer and KV head.

    Above `kv_heads` ranks the heads are replicated. Llama-3.1-405B in fp8: 258,048 bytes.
    """
    heads = max(model.kv_heads, engine.tensor_parallel_size)
    element = _KV_ELEMENT_BYTES[engine.kv_cache_config.dtype]
    return 2 * model.layers * heads * model.head_size * element


def transfer_buffer_bytes_per_gpu(model: Model, engine: Engine) -> float:
    """Bytes of the KV transceiver on each GPU: one buffer to send and one to receive, both allocated ahead.

    Source: TensorRT-LLM, CacheTransBufferManager::preAllocBufferSize.
    """
    buffer_tokens = engine.cache_transceiver_config.max_tokens_in_buffer
    return 2 * buffer_tokens * kv_bytes_per_token(model, engine) / engine.gpus


def activation_bytes_per_gpu(model: Model, engine: Engine) -> float:
    """Bytes of activations at the peak of the largest step: an estimate.

    BF16, a token: four vectors of the hidden size, three of this rank's share of the feed-forward layer; a
    sequence: FP32 logits over the vocabulary. TensorRT-LLM measures the peak with a dummy step of
    max_num_tokens tokens before it sizes its cache (_util.py, estimate_max_kv_cache_tokens).
    """
    vectors = 4 * model.hidden_size + 3 * model.ffn_size / engine.tensor_parallel_size
    logits = engine.max_batch_size * model.vocabulary_size * _FP32_BYTES
    return engine.max_num_tokens * vectors * _BF16_BYTES + logits


def kv_capacity_tokens(model: Model, hardware: Hardware, engine: Engine) -> int:
    """Tokens of KV cache one worker holds, in whole blocks; 0 when the rest leaves nothing.

    Formula: free_gpu_memory_fraction x (HBM - weights - activations - CUDA graphs - transfer buffers -
    RUNTIME_BYTES), over all GPUs of the worker.
    Source: TensorRT-LLM's `free_gpu_memory_fraction`, a share of what is free after the engine is loaded.
    """
    taken = (
        weight_bytes_per_gpu(model, engine)
        + activation_bytes_per_gpu(model, engine)
        + CUDA_GRAPH_BYTES * len(engine.graph_batch_sizes)
        + transfer_buffer_bytes_per_gpu(model, engine)
        + RUNTIME_BYTES
    )
    share = engine.kv_cache_config.free_gpu_memory_fraction * (hardware.hbm_bytes - taken) * engine.gpus
    blocks = int(share // (kv_bytes_per_token(model, engine) * KV_BLOCK_TOKENS))
    return max(blocks, 0) * KV_BLOCK_TOKENS


def reserved_tokens(
    prompt_tokens: NDArray[np.int64], answer_tokens: int | NDArray[np.int64], max_seq_len: int
) -> NDArray[np.int64]:
    """KV tokens that GUARANTEED_NO_EVICT sets aside for each sequence, in whole blocks; shape as given."""
    tokens: NDArray[np.int64] = np.minimum(prompt_tokens + answer_tokens, max_seq_len)
    return -(-tokens // KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS


def decode_batch_that_kv_holds(model: Model, hardware: Hardware, engine: Engine, dataset: Dataset) -> int:
    """The most sequences of mean length whose KV cache one decode worker holds at once."""
    answer = (
        float(dataset.longest_answer_tokens)
        if engine.capacity_policy == "GUARANTEED_NO_EVICT"
        else dataset.outputs.mean_tokens / 2
    )
    mean_tokens = dataset.inputs.mean_tokens + answer
    return int(kv_capacity_tokens(model, hardware, engine) // mean_tokens)
