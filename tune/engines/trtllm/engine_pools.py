"""Find TensorRT-LLM's settings in a trial."""

from __future__ import annotations

from tune.engines.trtllm.generation_rules import Pools
from tune.errors import ConfigurationError
from tune.spec.engine import Engine
from tune.spec.trial import TrialSpec
from tune.spec.trtllm_engine import TrtLlmEngine


def trtllm_settings(engine: Engine) -> TrtLlmEngine:
    """Return `engine`. Raises ConfigurationError where these are the settings of another engine."""
    if isinstance(engine, TrtLlmEngine):
        return engine
    raise ConfigurationError(
        f"stack.engine: found settings of another engine ({type(engine).__name__}) in prefill or decode, "
        "expected TensorRT-LLM's. Choose a stack of that engine, or prefill and decode for this one."
    )


def trtllm_pools(spec: TrialSpec) -> Pools:
    """Return the settings of both pools. Raises ConfigurationError where they are another engine's."""
    return ("prefill", trtllm_settings(spec.prefill)), ("decode", trtllm_settings(spec.decode))
