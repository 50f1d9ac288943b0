"""Estimate what fits in the GPU memory of a TensorRT-LLM worker beside its weights."""

from __future__ import annotations

from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.spec.hardware import Hardware
from tune.spec.memory import kv_bytes_per_token, weight_bytes_per_gpu
from tune.spec.model import Model

CUDA_GRAPH_BYTES = 200e6
"""Upper end of what one captured CUDA graph costs on a GPU. Source: TensorRT-LLM's CUDA graph notes."""

RUNTIME_BYTES = 4e9
"""CUDA context, NCCL and kernel workspaces on each GPU. Assumption."""

UNSIZED_BUFFER_BYTES = 512 * 2**20
"""A buffer of the KV transceiver where max_tokens_in_buffer is absent.
Source: TensorRT-LLM, TRTLLM_KVCACHE_TRANSFER_BUFFER_SIZE in its documentation of disaggregated serving."""

_BF16_BYTES, _FP32_BYTES = 2, 4


def transfer_buffer_bytes_per_gpu(model: Model, engine: TrtLlmEngine) -> float:
    """Return the bytes of the KV transceiver on each GPU.

    It has one buffer to send and one to receive, both allocated ahead; a worker without a transceiver has
    none.
    Source: TensorRT-LLM, CacheTransBufferManager::preAllocBufferSize.
    """
    if engine.cache_transceiver_config is None:
        return 0.0
    buffer_tokens = engine.cache_transceiver_config.max_tokens_in_buffer
    if buffer_tokens is None:
        return 2 * UNSIZED_BUFFER_BYTES
    return 2 * buffer_tokens * kv_bytes_per_token(model, engine) / engine.gpus


def activation_bytes_per_gpu(model: Model, engine: TrtLlmEngine) -> float:
    """Estimate the bytes of activations at the peak of the largest step.

    In BF16, a token takes four vectors of the hidden size and three of this rank's share of the feed-forward
    layer; a sequence takes FP32 logits over the vocabulary. TensorRT-LLM measures the peak with a dummy step
    of max_num_tokens tokens before it sizes its cache (_util.py, estimate_max_kv_cache_tokens).
    """
    vectors = 4 * model.hidden_size + 3 * model.ffn_size / engine.tensor_parallel_size
    logits = engine.max_batch_size * model.vocabulary_size * _FP32_BYTES
    return engine.max_num_tokens * vectors * _BF16_BYTES + logits


def trtllm_kv_capacity_tokens(model: Model, hardware: Hardware, engine: TrtLlmEngine) -> int:
    """Return the tokens of KV cache that one worker holds, in whole blocks; 0 when nothing is left for it.

    Notes
    -----
    free_gpu_memory_fraction x (HBM - weights - activations - CUDA graphs - transfer buffers - RUNTIME_BYTES),
    over all GPUs of the worker.
    Source: TensorRT-LLM's `free_gpu_memory_fraction`, a share of what is free after the engine is loaded.
    """
    taken = (
        weight_bytes_per_gpu(model, engine)
        + activation_bytes_per_gpu(model, engine)
        + CUDA_GRAPH_BYTES * len(engine.captured_graph_sizes)
        + transfer_buffer_bytes_per_gpu(model, engine)
        + RUNTIME_BYTES
    )
    share = engine.kv_cache_config.free_gpu_memory_fraction * (hardware.hbm_bytes - taken) * engine.gpus
    blocks = int(share // (kv_bytes_per_token(model, engine) * engine.kv_block_tokens))
    return max(blocks, 0) * engine.kv_block_tokens
