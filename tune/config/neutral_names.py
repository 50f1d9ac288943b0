"""Replace neutral names of an engine's settings in a sweep by the engine's own."""

from __future__ import annotations

from tune.spec.engine_table import ENGINES, settings_class
from tune.spec.split import ALL_ROLES


def name_engine_settings(sweep: object, stack: object) -> None:
    """Replace `ROLE.NAME` in the paths of `sweep`, with a neutral name, by the path that the engine has.

    Neutral names are those of `Engine.KEYS` (tune/spec/engine.py), such as prefill.token_budget, which is
    prefill.max_num_tokens in TensorRT-LLM. `sweep` and `stack` are composed and not yet validated; what does
    not validate is left for the validation.
    """
    engine = stack.get("engine") if isinstance(stack, dict) else None
    space = sweep.get("space") if isinstance(sweep, dict) else None
    if not isinstance(engine, str) or engine not in ENGINES or not isinstance(space, dict):
        return
    keys = {
        f"{role}.{name}": f"{role}.{key}"
        for name, key in settings_class(engine).KEYS.items()
        if name != "graph_batch_sizes"  # a group in TensorRT-LLM; dimensions of kind graph_family vary it
        for role in ALL_ROLES
    }
    for dimension in space.values():
        if isinstance(dimension, dict) and isinstance(path := dimension.get("path"), str):
            dimension["path"] = keys.get(path, path)
