"""Find TensorRT-LLM's settings in a trial."""

from __future__ import annotations

from typing import get_args

from tune.engines.trtllm.trtllm_engine import Generation, TrtLlmEngine
from tune.spec.engine import Engine
from tune.spec.split import Role
from tune.spec.stack import Stack
from tune.spec.trial import TrialSpec

Pools = tuple[tuple[Role, TrtLlmEngine], ...]


def trtllm_settings(engine: Engine) -> TrtLlmEngine:
    """Return the settings of a pool, which were validated as TensorRT-LLM's."""
    assert isinstance(engine, TrtLlmEngine)
    return engine


def trtllm_pools(spec: TrialSpec) -> Pools:
    """Return the settings of every pool of the deployment."""
    return tuple((pool.role, trtllm_settings(pool.engine)) for pool in spec.pools)


def yaml_generation(stack: Stack) -> Generation:
    """Return the generation of the engine's YAML, which was validated as one of TensorRT-LLM's."""
    generations: dict[str, Generation] = {name: name for name in get_args(Generation)}
    return generations[stack.engine_yaml]
