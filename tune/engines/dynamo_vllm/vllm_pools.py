"""Find vLLM's settings in a trial."""

from __future__ import annotations

from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.spec.engine import Engine
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

Pools = tuple[tuple[Role, VllmEngine], tuple[Role, VllmEngine]]


def vllm_settings(engine: Engine) -> VllmEngine:
    """Return the settings of a pool, which were validated as vLLM's."""
    assert isinstance(engine, VllmEngine)
    return engine


def vllm_pools(spec: TrialSpec) -> Pools:
    """Return the settings of both pools."""
    return ("prefill", vllm_settings(spec.prefill)), ("decode", vllm_settings(spec.decode))
