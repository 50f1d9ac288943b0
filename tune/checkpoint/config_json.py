"""Read the sizes of a model, and the number formats of its tensors, from the files of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune.errors import ConfigurationError
from tune.spec.model import WeightDtype

CONFIG_FILE, QUANTIZATION_FILE = "config.json", "hf_quant_config.json"

_WEIGHT_BITS: Mapping[WeightDtype, float] = {
    "nvfp4": 4.5,
    "mxfp4": 4.25,
    "fp8": 8.0,
    "int8": 8.0,
    "bfloat16": 16.0,
    "float16": 16.0,
}
"""Bits of a weight with its share of a scale: of 8 bits for 16 weights (NVFP4) or 32 (MXFP4)."""

_BF16_BYTES = 2


def checkpoint_sizes(folder: Path) -> dict[str, Any]:
    """Return sizes and `weight_dtype` of the model in `folder` by the names of the settings `model`.

    Raises ConfigurationError for a config.json without sizes.
    """
    file = folder / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        weight_dtype = _weight_dtype(config, _quantization(folder))
        return model_sizes(config.get("text_config", config), weight_dtype)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{file}: found no sizes of a model ({error}); expected the config.json of a checkpoint, with "
            "num_hidden_layers, hidden_size, num_attention_heads and vocab_size."
        ) from None


def kv_cache_format(folder: Path) -> str | None:
    """Return the number format for which the checkpoint has scales of its KV cache, such as fp8, else None.

    Source: hf_quant_config.json of NVIDIA's ModelOpt, quantization.kv_cache_quant_algo.
    """
    stated = _quantization(folder).get("kv_cache_quant_algo")
    return str(stated).lower() if stated else None


def unread_quantization(folder: Path) -> str | None:
    """Return the method by which the weights in `folder` are quantised where it names no format of `model`.

    None for weights of a known format, and for plain ones.
    """
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    stated = config.get("quantization_config") or {}
    texts = (_quantization(folder).get("quant_algo"), stated.get("quant_algo"), stated.get("quant_method"))
    named = [str(text) for text in texts if text]
    known = any(known in text.lower() for text in named for known in ("nvfp4", "mxfp4", "fp8"))
    return named[0] if named and not known else None


def _quantization(folder: Path) -> dict[str, Any]:
    """Return what ModelOpt says of the checkpoint, nothing where it did not make it."""
    file = folder / QUANTIZATION_FILE
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return dict(content.get("quantization", {}))


def _weight_dtype(config: Mapping[str, Any], quantization: Mapping[str, Any]) -> WeightDtype:
    """Return the number format of a checkpoint's weights.

    Sources: config.json (quantization_config, expert_dtype, dtype) and ModelOpt's hf_quant_config.json.
    """
    stated = config.get("quantization_config") or {}
    algorithm = str(quantization.get("quant_algo") or stated.get("quant_algo") or "").lower()
    method = str(stated.get("quant_method", "")).lower()
    if "nvfp4" in algorithm:
        return "nvfp4"
    if method == "mxfp4" or config.get("expert_dtype") == "fp4":
        return "mxfp4"
    if "fp8" in algorithm or method == "fp8":
        return "fp8"
    text = config.get("text_config", config)
    plain = str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")
    return "float16" if plain == "float16" else "bfloat16"


def model_sizes(config: Mapping[str, Any], weight_dtype: WeightDtype) -> dict[str, Any]:
    """Return the sizes of a model as settings, from the keys of its config.json."""
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    every_token, all_experts = _linear_parameters(config)
    embeddings = 2 * config["vocab_size"] * hidden
    kv_heads, head_size = _kv_shape(config)
    experts = _experts(config)
    return {
        "layers": layers,
        "hidden_size": hidden,
        "attention_heads": config["num_attention_heads"],
        "kv_heads": kv_heads,
        "head_size": head_size,
        "ffn_size": config.get("intermediate_size") or _active_ffn(config),
        "vocabulary_size": config["vocab_size"],
        "linear_parameters": float(every_token),
        "weight_dtype": weight_dtype,
        "checkpoint_bytes": all_experts * _WEIGHT_BITS[weight_dtype] / 8 + embeddings * _BF16_BYTES,
        "context_tokens": config.get("max_position_embeddings"),
        **({"experts": experts} if experts else {}),
    }


def _kv_shape(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return KV heads and head size; a compressed cache (MLA) is one head with half of it as K, half as V.

    Source: DeepSeek-V2, arXiv 2405.04434: a token's cache is kv_lora_rank + qk_rope_head_dim numbers.
    """
    if config.get("kv_lora_rank"):
        return 1, (config["kv_lora_rank"] + config["qk_rope_head_dim"]) // 2
    heads = config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // heads
    return config.get("num_key_value_heads") or heads, head_size


def _experts(config: Mapping[str, Any]) -> int:
    """Return the routed experts of a layer, 0 for a dense model; each family names them otherwise."""
    names = ("n_routed_experts", "num_local_experts", "num_experts")
    return int(next((config[name] for name in names if config.get(name)), 0))


def _active_ffn(config: Mapping[str, Any]) -> int:
    """Return the size of the feed-forward layer that a token passes through in a layer with experts."""
    size = config.get("moe_intermediate_size") or config["intermediate_size"]
    shared = config.get("shared_expert_intermediate_size") or size * (config.get("n_shared_experts") or 0)
    return int(size * config["num_experts_per_tok"] + shared)


def _linear_parameters(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the weights that every token multiplies, and those with all experts."""
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    attention = layers * _attention_parameters(config)
    experts = _experts(config)
    if not experts:
        dense = attention + layers * 3 * hidden * config["intermediate_size"]
        return dense, dense
    first = config.get("first_k_dense_replace") or 0
    dense = attention + first * 3 * hidden * config.get("intermediate_size", 0)
    size = config.get("moe_intermediate_size") or config["intermediate_size"]
    inactive = size * (experts - config["num_experts_per_tok"])
    active = dense + (layers - first) * 3 * hidden * _active_ffn(config)
    return active, active + (layers - first) * 3 * hidden * inactive


def _attention_parameters(config: Mapping[str, Any]) -> int:
    """Return the weights of a layer's attention, with queries, K and V, and outputs of low rank where it has.

    Sources: modeling code of DeepSeek-V3 (K and V of one low rank) and DeepSeek-V4 (outputs in groups).
    """
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads, head_size = _kv_shape(config)
    kv, value = 2 * hidden * kv_heads * head_size, head_size
    if config.get("kv_lora_rank"):
        rank, nope = config["kv_lora_rank"], config["qk_nope_head_dim"]
        head_size, value = nope + config["qk_rope_head_dim"], config["v_head_dim"]
        kv = hidden * (rank + config["qk_rope_head_dim"]) + rank * heads * (nope + value)
    query = _through(config.get("q_lora_rank"), hidden, heads * head_size)
    output = heads * value * hidden
    if config.get("o_lora_rank"):
        rank = config["o_lora_rank"]
        output = heads * value * rank + config["o_groups"] * rank * hidden
    return int(query + kv + output)


def _through(rank: int | None, inputs: int, outputs: int) -> int:
    """Return the weights from `inputs` to `outputs`, by way of a low rank where there is one."""
    return inputs * rank + rank * outputs if rank else inputs * outputs
