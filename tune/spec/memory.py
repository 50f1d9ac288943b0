"""What fits in a worker's GPU memory: weights, CUDA graphs, KV cache."""

from __future__ import annotations

from tune.spec.engine import CUDA_GRAPH_BYTES, KV_BLOCK_TOKENS, Engine, KvDtype
from tune.spec.hardware import Hardware
from tune.spec.load import Dataset
from tune.spec.model import Model

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


def kv_capacity_tokens(model: Model, hardware: Hardware, engine: Engine) -> int:
    """Tokens of KV cache one worker holds, in whole blocks; 0 when the weights leave nothing.

    Formula: free_gpu_memory_fraction x (HBM - weights - CUDA graphs), over all GPUs of the worker.
    Source: TensorRT-LLM's `free_gpu_memory_fraction`, a share of what is free after the engine is loaded.
    """
    graphs = CUDA_GRAPH_BYTES * len(engine.graph_batch_sizes)
    free = hardware.hbm_bytes - weight_bytes_per_gpu(model, engine) - graphs
    share = engine.kv_cache_config.free_gpu_memory_fraction * free * engine.gpus
    blocks = int(share // (kv_bytes_per_token(model, engine) * KV_BLOCK_TOKENS))
    return max(blocks, 0) * KV_BLOCK_TOKENS


def reserved_tokens(prompt_tokens: int, answer_tokens: int, max_seq_len: int) -> int:
    """KV tokens that GUARANTEED_NO_EVICT sets aside for one sequence, in whole blocks."""
    tokens = min(prompt_tokens + answer_tokens, max_seq_len)
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
