"""Find the sizes of a recipe's model: those of its checkpoint where that is here, else public ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tune.errors import ConfigurationError
from tune.recipes.recipe import ServedModel
from tune.spec.model import WeightDtype

_PUBLIC_MODELS = Path(__file__).with_name("public_models.yaml")
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
_PRECISIONS: Mapping[str, WeightDtype] = {
    "fp8": "fp8",
    "bf16": "bfloat16",
    "fp16": "float16",
    "int8": "int8",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
}
"""Number formats of weights, by what recipes call them; fp4 is one of two."""


def checkpoint_model(folder: Path, name: str, served_name: str | None) -> dict[str, Any] | None:
    """Return the model of a checkpoint as settings of tune, None where the folder has no config.json.

    Parameters
    ----------
    folder
        The checkpoint.
    name
        Name of the model.
    served_name
        Name in requests; None for the folder's.

    Returns
    -------
    dict[str, Any] | None
        The group `model`.

    Raises
    ------
    ConfigurationError
        For a config.json without sizes.
    """
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        quantization = _json(folder / "hf_quant_config.json").get("quantization", {})
        weight_dtype = _weight_dtype(config, quantization)
        sizes = _sizes(config.get("text_config", config), weight_dtype)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{file}: found no sizes of a model ({error}); expected the config.json of a checkpoint, with "
            "num_hidden_layers, hidden_size, num_attention_heads and vocab_size. Nothing was written."
        ) from None
    weights = sum(part.stat().st_size for part in folder.glob("*.safetensors"))
    known = {"checkpoint_bytes": float(weights)} if weights else {}
    return {"name": name, "served_name": served_name or folder.name, **sizes, **known}


def public_model(model: ServedModel, name: str) -> dict[str, Any] | None:
    """Return a public model as settings of tune, None where public_models.yaml has none of its name."""
    called = [text.rpartition("/")[2].lower() for text in (model.repository, model.path) if text]
    entries = yaml.safe_load(_PUBLIC_MODELS.read_text(encoding="utf-8"))
    for found in called:
        near = [
            (len(start), entry) for entry in entries for start in entry["names"] if found.startswith(start)
        ]
        if near:
            _, entry = max(near, key=lambda pair: pair[0])
            precision = (model.precision or "fp8").lower()
            weight_dtype: WeightDtype = entry["fp4"] if precision == "fp4" else _PRECISIONS[precision]
            served_name = model.served_name or model.repository or model.path.rpartition("/")[2]
            return {"name": name, "served_name": served_name, **_sizes(entry["config"], weight_dtype)}
    return None


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content


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


def _sizes(config: Mapping[str, Any], weight_dtype: WeightDtype) -> dict[str, Any]:
    """Return the sizes of a model by the keys of its config.json."""
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
