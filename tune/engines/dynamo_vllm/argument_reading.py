"""Read arguments of vLLM as settings: the inverse of `engine_arguments` in vllm_processes.py."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.engines.dynamo_vllm.vllm_processes import KV_TRANSFER
from tune.engines.key_shapes import COUNT, COUNTS, GPUS, KeyPlace, Shape
from tune.spec.engine_settings import own_fields
from tune.spec.split import ROLES, Role

_ABSENT: Mapping[str, Any] = {
    "tensor_parallel_size": 1,
    "max_num_seqs": 1024,
    "max_num_batched_tokens": 8192,
    "gpu_memory_utilization": 0.9,
    "kv_cache_dtype": "auto",
    "block_size": None,
    "enable_prefix_caching": True,
    "enable_chunked_prefill": True,
    "async_scheduling": None,
    "stream_interval": None,
    "enforce_eager": False,
    "cudagraph_capture_sizes": None,
    "dtype": "auto",
    "load_format": "auto",
    "enable_logging_iteration_details": False,
}
"""What holds where no argument says; the two sizes of a step are those of a server on GPUs with 70 GiB or
more. Source: vLLM, vllm/engine/arg_utils.py (get_batch_defaults) and vllm/config/."""

_SHORT = {"-tp": "tensor_parallel_size", "-pp": "pipeline_parallel_size", "-dp": "data_parallel_size"}

_OF_THE_WORKER = frozenset(
    {
        *("model", "served_model_name", "request_plane"),
        *("disaggregation_mode", "is_prefill_worker", "is_decode_worker"),
    }
)
"""Arguments that follow from the deployment. Source: Dynamo, components/src/dynamo/vllm/args.py."""

_SIZES = "cudagraph_capture_sizes"
_GPUS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

_SHAPES: Mapping[str, Shape] = {**dict.fromkeys(_GPUS, GPUS), "max_model_len": COUNT, _SIZES: COUNTS}
"""What the functions of this module expect of the arguments that they read."""


def keys_of_arguments(role: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a worker's command line by their names, without those of the deployment.

    A flag is true, and false with `no-` before its name; several words after a name are a list.
    """
    return _keys_of_role(role, dict(_arguments(words)))


def _keys_of_role(role: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return named arguments, without the connector of KV caches that prefill and decode have in any case."""
    named = named_keys(keys)
    if role in ROLES and _parsed(named.get("kv_transfer_config")) == json.loads(KV_TRANSFER):
        del named["kv_transfer_config"]
    return named


def named_keys(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments under the names of settings, without those that follow from the deployment."""
    named = dict(_named(name, value) for name, value in keys.items())
    if isinstance(named.get(_SIZES), int):  # a list of one word
        named[_SIZES] = [named[_SIZES]]
    return {name: value for name, value in named.items() if name not in _OF_THE_WORKER}


def read_shapes(keys: Mapping[str, Any]) -> Iterator[tuple[KeyPlace, Shape]]:
    """Yield what is expected of arguments, under their names in `keys`."""
    for name, value in keys.items():
        setting, _ = _named(name, value)
        if setting in _SHAPES and not (setting == _SIZES and isinstance(value, int)):  # a list of one word
            yield (name,), _SHAPES[setting]


def settings_of_arguments(role: Role, keys: Mapping[str, Any], context_tokens: int | None) -> dict[str, Any]:
    """Return the settings of a pool: typed ones under their names, any other argument in `extra`.

    Parameters
    ----------
    role
        The pool: the connector of prefill and decode workers is no setting, that of aggregated ones is.
    keys
        The arguments by their names, with `-` or `_` in them.
    context_tokens
        Longest sequence of the model, which holds where the arguments limit none.

    Returns
    -------
    dict[str, Any]
        The settings, not yet validated. Where an argument is absent they state the engine's default.
    """
    named = _keys_of_role(role, keys)
    typed = [name for name in own_fields(VllmEngine) if name != "extra"]
    absent = {**_ABSENT, "max_model_len": context_tokens}
    return {
        **{name: value for name, value in absent.items() if name not in named},
        **{name: value for name, value in named.items() if name in typed},
        "extra": {name: value for name, value in named.items() if name not in typed},
    }


def comparable_arguments(role: Role, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments under the names of settings, sizes of CUDA graphs as the engine sorts them."""
    named = _keys_of_role(role, keys)
    if named.get(_SIZES):
        named[_SIZES] = sorted(set(named[_SIZES]))
    return named


def gpus_of_arguments(keys: Mapping[str, Any]) -> int:
    """Return the GPUs of a worker: the product of its tensor, pipeline and data parallelism."""
    named = named_keys(keys)
    return math.prod(named.get(name) or 1 for name in _GPUS)


def longest_prompt_of_arguments(keys: Mapping[str, Any]) -> float:
    """Return the most tokens of a prompt that a worker takes; infinite where nothing limits it."""
    longest = named_keys(keys).get("max_model_len")
    return float(longest - 1) if longest else math.inf


def _arguments(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each argument; words before the first are left out."""
    name: str | None = None
    values: list[str] = []
    for word in words:
        if word.startswith("--") or word in _SHORT:
            if name is not None:
                yield _argument(name, values)
            name, equals, value = word.partition("=")
            values = [value] if equals else []
        else:
            values.append(word)
    if name is not None:
        yield _argument(name, values)


def _argument(name: str, values: list[str]) -> tuple[str, Any]:
    plain = _SHORT.get(name) or name.removeprefix("--")
    if not values:
        return plain, True
    parsed = [_parsed(value) for value in values]
    return plain, parsed[0] if len(parsed) == 1 else parsed


def _named(name: str, value: Any) -> tuple[str, Any]:
    """Return setting and value of an argument, `_` for `-` in front of a dot; false after `no-`."""
    head, dot, rest = name.partition(".")
    setting = head.replace("-", "_")
    if setting.startswith("no_") and value is True:
        return setting.removeprefix("no_"), False
    is_json = isinstance(value, str) and value.startswith("{")
    return f"{setting}{dot}{rest}", _parsed(value) if is_json else value


def _parsed(value: Any) -> Any:
    """Return a number or a mapping that a word stands for, else the word."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
