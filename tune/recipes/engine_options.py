"""Write the keys of an engine's YAML as the settings of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune.spec.engine_table import settings_class

ENGINE = "trtllm"

_ABSENT: Mapping[str, Any] = {
    "backend": None,
    "disable_overlap_scheduler": None,
    "tensor_parallel_size": 1,
    "max_batch_size": 2048,
    "max_num_tokens": 8192,
    "kv_cache_config": {},
    "cuda_graph_config": {},
    "cache_transceiver_config": {},
}
"""What holds where the engine's YAML does not say. Source: TensorRT-LLM, tensorrt_llm/llmapi/llm_args.py."""


def pool_option(
    engine_keys: Mapping[str, Any], env: Mapping[str, str | None], context_tokens: int | None
) -> dict[str, Any]:
    """Return the settings of a pool.

    Parameters
    ----------
    engine_keys
        The keys of the engine's YAML, under today's names.
    env
        Variables of every worker.
    context_tokens
        Longest sequence of the model, which holds where the keys do not limit one.

    Returns
    -------
    dict[str, Any]
        Typed settings under their names, any other key at the top of the YAML in `extra`.
    """
    typed = settings_class(ENGINE).model_fields.keys() - {"extra", "env"}
    absent = {**_ABSENT, "max_seq_len": context_tokens}
    return {
        **{name: value for name, value in absent.items() if name not in engine_keys},
        **{name: value for name, value in engine_keys.items() if name in typed},
        "extra": {name: value for name, value in engine_keys.items() if name not in typed},
        "env": dict(env),
    }


def yaml_keys(engine_keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return an engine's keys with the sizes of CUDA graphs as the engine sorts them."""
    graphs = engine_keys.get("cuda_graph_config") or {}
    if "batch_sizes" not in graphs:
        return dict(engine_keys)
    sizes = sorted(set(graphs["batch_sizes"]))
    return {**engine_keys, "cuda_graph_config": {**graphs, "batch_sizes": sizes}}
