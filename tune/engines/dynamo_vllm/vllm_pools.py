"""Find vLLM's settings in a trial."""

from __future__ import annotations

from tune.engines.dynamo_vllm.vllm_engine import VllmEngine
from tune.spec.engine import Engine
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

Pools = tuple[tuple[Role, VllmEngine], ...]


def vllm_settings(engine: Engine) -> VllmEngine:
    """Return the settings of a pool, which were validated as vLLM's."""
    assert isinstance(engine, VllmEngine)
    return engine


def vllm_pools(spec: TrialSpec) -> Pools:
    """Return the settings of every pool of the deployment."""
    return tuple((pool.role, vllm_settings(pool.engine)) for pool in spec.pools)
