"""Estimate the KV cache that a vLLM worker has room for."""

from __future__ import annotations

from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.spec.hardware import Hardware
from tune.spec.memory import kv_bytes_per_token, weight_bytes_per_gpu
from tune.spec.model import Model

_BF16_BYTES, _FP32_BYTES = 2, 4


def _peak_activation_bytes(model: Model, engine: VllmEngine) -> float:
    """Estimate the bytes of activations at the peak of the largest step.

    In BF16, a token takes four vectors of the hidden size and three of this rank's share of the feed-forward
    layer; a sequence takes FP32 logits over the vocabulary. vLLM measures the peak with a step of
    max_num_batched_tokens tokens before it sizes its cache (gpu_worker.py, determine_available_memory).
    """
    vectors = 4 * model.hidden_size + 3 * model.ffn_size / engine.tensor_parallel_size
    logits = engine.max_num_seqs * model.vocabulary_size * _FP32_BYTES
    return engine.max_num_batched_tokens * vectors * _BF16_BYTES + logits


def vllm_kv_capacity_tokens(model: Model, hardware: Hardware, engine: VllmEngine) -> int:
    """Return the tokens of KV cache that one worker holds, in whole blocks; 0 when nothing is left for it.

    Notes
    -----
    gpu_memory_utilization x HBM - weights - activations, over all GPUs of the worker. CUDA graphs are
    captured afterwards, from what gpu_memory_utilization leaves.
    Source: vLLM 0.23.0, vllm/v1/worker/gpu_worker.py. On an H200 (24 layers of Llama-3.1-70B in BF16,
    gpu_memory_utilization 0.85, 8,192 tokens a step) it reported 846,960 tokens; this formula gives 1 % more.
    """
    share = engine.gpu_memory_utilization * hardware.hbm_bytes
    left = share - weight_bytes_per_gpu(model, engine) - _peak_activation_bytes(model, engine)
    blocks = int(left * engine.gpus // (kv_bytes_per_token(model, engine) * engine.kv_block_tokens))
    return max(blocks, 0) * engine.kv_block_tokens
