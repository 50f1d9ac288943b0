"""Compose trials of vLLM under Dynamo, as they ran on two H200."""

from __future__ import annotations

from pathlib import Path

from support.composed import changed, composed
from tune.spec.settings import Settings

SEEN = Path(__file__).parents[1] / "data" / "vllm"
TWO_GPUS = (
    *("stack=dynamo_vllm", "cluster=local", "hardware=h200_x2", "split=1p1d", "model=llama3_1_70b_24layers"),
    *("prefill=vllm_one_gpu", "decode=vllm_one_gpu", "load=fixed", "load.mode=fixed"),
    *("load.dataset.inputs.tokens=512", "load.dataset.outputs.tokens=32"),
)


def vllm_settings(*overrides: str) -> Settings:
    """Return the deployment on two GPUs with `overrides`."""
    options = [override for override in overrides if "." not in override.partition("=")[0]]
    changes = [override for override in overrides if override not in options]
    return changed(composed(*TWO_GPUS, *options), *changes)
