"""Write the folder of a checkpoint that has few weights and says that it has all of a model's."""

from __future__ import annotations

import json
from pathlib import Path

from tune.spec.model import Model

SHARDS = tuple(f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3))
TENSOR_BYTES = 64


def write_checkpoint(folder: Path, model: Model, kv_cache: str | None = "FP8") -> Path:
    """Write config, tokenizer, quantisation, an index and three shards of 64 bytes; return `folder`."""
    folder.mkdir(parents=True)
    sizes = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.ffn_size,
        "vocab_size": model.vocabulary_size,
        "max_position_embeddings": model.context_tokens,
        "torch_dtype": "bfloat16",
    }
    quantization = {"quant_algo": model.weight_dtype.upper(), "kv_cache_quant_algo": kv_cache}
    index = {
        "metadata": {"total_size": TENSOR_BYTES * len(SHARDS)},
        "weight_map": {f"layer.{number}": shard for number, shard in enumerate(SHARDS)},
    }
    texts = {
        "config.json": sizes,
        "hf_quant_config.json": {"quantization": quantization},
        "tokenizer.json": {},
        "model.safetensors.index.json": index,
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    for number, shard in enumerate(SHARDS):
        (folder / shard).write_bytes(shard_of(f"layer.{number}"))
    return folder


def shard_of(tensor: str) -> bytes:
    """Return a file of safetensors with one tensor of 64 bytes."""
    header = {
        "__metadata__": {"format": "pt"},
        tensor: {"dtype": "U8", "shape": [TENSOR_BYTES], "data_offsets": [0, TENSOR_BYTES]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(TENSOR_BYTES)
