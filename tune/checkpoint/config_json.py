"""Read the sizes of a model, and the number formats of its tensors, from the files of its checkpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune.errors import ConfigurationError
from tune.spec.model import WEIGHT_BITS, WeightDtype

CONFIG_FILE, QUANTIZATION_FILE = "config.json", "hf_quant_config.json"

INDEX_FILE = "model.safetensors.index.json"

_UNQUANTISED_ATTENTION = re.compile(r"(self_attn|\.attn)(\*|\.\*|\..*proj.*)?$")
"""Matches a module of attention's weights among those that a quantisation leaves out, and no norm of it."""

_BF16_BYTES = 2


def checkpoint_model(file: Path, name: str, served_name: str) -> dict[str, Any]:
    """Return the model of a checkpoint as settings of tune.

    Parameters
    ----------
    file
        Its config.json; what else is known stands beside it.
    name
        Name of the model.
    served_name
        Name in requests.

    Returns
    -------
    dict[str, Any]
        The group `model`.

    Raises
    ------
    ConfigurationError
        For a config.json without sizes.
    """
    sizes = {"name": name, "served_name": served_name, **checkpoint_sizes(file)}
    weights = sum(part.stat().st_size for part in file.parent.glob("*.safetensors"))
    index = file.with_name(INDEX_FILE)
    if not weights and index.is_file():
        weights = int(_json(index).get("metadata", {}).get("total_size") or 0)
    return sizes | ({"checkpoint_bytes": float(weights)} if weights else {})


def checkpoint_sizes(file: Path) -> dict[str, Any]:
    """Return sizes and number formats of the model of `file`, a config.json, by the names of `model`.

    Raises ConfigurationError for a config.json without sizes.
    """
    try:
        config, quantization = _json(file), _quantization(file.parent)
        weight_dtype = _weight_dtype(config, quantization)
        attention = _attention_dtype(config, quantization, weight_dtype)
        sizes = model_sizes(config.get("text_config", config), weight_dtype, attention)
        kv_dtype = kv_cache_format(file.parent)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, ZeroDivisionError) as error:
        raise ConfigurationError(
            f"{file}: found no sizes of a model ({error}); expected the config.json of a checkpoint, with "
            "num_hidden_layers, hidden_size, num_attention_heads and vocab_size."
        ) from None
    return sizes | ({"kv_dtype": kv_dtype} if kv_dtype in ("fp8", "nvfp4") else {})


def kv_cache_format(folder: Path) -> str | None:
    """Return the number format for which the checkpoint has scales of its KV cache, such as fp8, else None.

    Source: hf_quant_config.json of NVIDIA's ModelOpt, quantization.kv_cache_quant_algo.
    """
    stated = _quantization(folder).get("kv_cache_quant_algo")
    return str(stated).lower() if stated else None


def unread_quantization(file: Path) -> str | None:
    """Return the method by which the weights of `file`, a config.json, are quantised where none can read it.

    None for weights of a format of `model`, and for plain ones.
    """
    stated = _json(file).get("quantization_config") or {}
    texts = (
        _quantization(file.parent).get("quant_algo"),
        stated.get("quant_algo"),
        stated.get("quant_method"),
    )
    named = [str(text) for text in texts if text]
    known = any(known in text.lower() for text in named for known in ("nvfp4", "mxfp4", "fp8"))
    return named[0] if named and not known else None


def _quantization(folder: Path) -> dict[str, Any]:
    """Return what ModelOpt says of the checkpoint, nothing where it did not make it."""
    file = folder / QUANTIZATION_FILE
    return dict(_json(file).get("quantization", {})) if file.is_file() else {}


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
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
    if "fp8" in algorithm or "fp8" in method:
        return "fp8"
    text = config.get("text_config", config)
    plain = str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")
    return "float16" if plain == "float16" else "bfloat16"


def _attention_dtype(
    config: Mapping[str, Any], quantization: Mapping[str, Any], weight_dtype: WeightDtype
) -> WeightDtype | None:
    """Return the number format of attention's weights where it is not `weight_dtype`, else None.

    Sources: exclude_modules of hf_quant_config.json; ignore and modules_to_not_convert of config.json;
    expert_dtype of DeepSeek-V4, beside which quant_method is that of all other weights.
    """
    stated = config.get("quantization_config") or {}
    if config.get("expert_dtype") == "fp4" and stated.get("quant_method") == "fp8":
        return "fp8"
    names = ("ignore", "modules_to_not_convert")
    left_out = [
        *(quantization.get("exclude_modules") or ()),
        *(x for n in names for x in stated.get(n) or ()),
    ]
    plain = any(_UNQUANTISED_ATTENTION.search(str(module)) for module in left_out)
    return "bfloat16" if plain and weight_dtype not in ("bfloat16", "float16") else None


def model_sizes(
    config: Mapping[str, Any], weight_dtype: WeightDtype, attention_dtype: WeightDtype | None = None
) -> dict[str, Any]:
    """Return the sizes of a model as settings.

    Parameters
    ----------
    config
        The keys of its config.json.
    weight_dtype
        Number format of the weights.
    attention_dtype
        That of attention and MTP layers where it is another.

    Returns
    -------
    dict[str, Any]
        Settings of the group `model`, without names; those that say nothing of this model are left out.
    """
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    kv_heads, head_size = _kv_shape(config)
    sizes = {
        "layers": layers,
        "hidden_size": hidden,
        "attention_heads": config["num_attention_heads"],
        "kv_heads": kv_heads,
        "head_size": head_size,
        "ffn_size": config.get("intermediate_size") or _active_ffn(config),
        "vocabulary_size": config["vocab_size"],
        "linear_parameters": float(_active_parameters(config)),
        "weight_dtype": weight_dtype,
        "checkpoint_bytes": _checkpoint_bytes(config, weight_dtype, attention_dtype or weight_dtype),
        "context_tokens": config.get("max_position_embeddings"),
        "attention": "mla" if config.get("kv_lora_rank") else None,
        "attention_dtype": attention_dtype,
        "mtp_layers": config.get("num_nextn_predict_layers") or None,
        **_window(config),
        **_expert_sizes(config),
    }
    optional = ("attention", "attention_dtype", "mtp_layers")
    return {name: value for name, value in sizes.items() if value is not None or name not in optional}


def _window(config: Mapping[str, Any]) -> dict[str, int]:
    """Return window and layers of sliding-window attention, nothing for a model without.

    A window that use_sliding_window switches off is none; layer_types says which layers have one, else all.
    """
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return {}
    kinds = config.get("layer_types") or ["sliding_attention"] * config["num_hidden_layers"]
    layers = kinds.count("sliding_attention")
    return {"sliding_window_tokens": window, "sliding_layers": layers} if layers else {}


def _expert_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Return what a model with experts has beside its layers, nothing for a dense one."""
    experts = _experts(config)
    if not experts:
        return {}
    size = _expert_ffn(config)
    chosen = config["num_experts_per_tok"]
    return {
        "experts": experts,
        "experts_per_token": chosen,
        "expert_ffn_size": size,
        "shared_experts": _active_ffn(config) // size - chosen,
        "dense_layers": config.get("first_k_dense_replace") or 0,
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


def _expert_ffn(config: Mapping[str, Any]) -> int:
    return int(config.get("moe_intermediate_size") or config["intermediate_size"])


def _active_ffn(config: Mapping[str, Any]) -> int:
    """Return the size of the feed-forward layer that a token passes through in a layer with experts."""
    size = _expert_ffn(config)
    shared = config.get("shared_expert_intermediate_size") or size * (config.get("n_shared_experts") or 0)
    return int(size * config["num_experts_per_tok"] + shared)


def _active_parameters(config: Mapping[str, Any]) -> int:
    """Return the weights that every token multiplies, without embeddings and MTP layers."""
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    attention = layers * _attention_parameters(config)
    first = (config.get("first_k_dense_replace") or 0) if _experts(config) else layers
    active = (layers - first) * _active_ffn(config) if first < layers else 0
    return int(attention + 3 * hidden * (first * (config.get("intermediate_size") or 0) + active))


def _checkpoint_bytes(config: Mapping[str, Any], weights: WeightDtype, attention: WeightDtype) -> float:
    """Return the bytes of a checkpoint: linear weights, embeddings in BF16, and MTP layers with their own.

    An MTP layer is a layer with experts, a projection of two vectors to one, and a copy of both embeddings;
    it has the number format of attention. Source: DeepSeek-V3, README_WEIGHTS.md.
    """
    layers, hidden, experts = config["num_hidden_layers"], config["hidden_size"], _experts(config)
    per_layer = _attention_parameters(config)
    all_layers = _active_parameters(config) - layers * per_layer
    idle = experts - config["num_experts_per_tok"] if experts else 0
    first = config.get("first_k_dense_replace") or 0
    spare = 3 * hidden * _expert_ffn(config) * idle if experts else 0
    mtp = config.get("num_nextn_predict_layers") or 0
    whole = per_layer + spare + 3 * hidden * (_active_ffn(config) if experts else config["intermediate_size"])
    embeddings = 2 * config["vocab_size"] * hidden * _BF16_BYTES
    main = (all_layers + (layers - first) * spare) * WEIGHT_BITS[weights] / 8
    rest = (layers * per_layer + mtp * whole) * WEIGHT_BITS[attention] / 8
    return float(main + rest + (1 + mtp) * embeddings + mtp * 2 * hidden * hidden * _BF16_BYTES)


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
