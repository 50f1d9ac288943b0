"""Compose trials of vLLM under Dynamo, as they ran on two H200."""

from __future__ import annotations

from pathlib import Path

from tune.config import compose_overrides
from tune.spec.settings import Settings

SEEN = Path(__file__).parents[1] / "data" / "vllm"
TWO_GPUS = (
    *("stack=dynamo_vllm", "cluster=local", "hardware=h200_x2", "split=1p1d", "model=llama3_1_70b_24layers"),
    *("prefill=vllm_one_gpu", "decode=vllm_one_gpu", "load=fixed", "load.mode=fixed"),
    *("load.dataset.inputs.tokens=512", "load.dataset.outputs.tokens=32"),
)


def vllm_settings(*overrides: str) -> Settings:
    """Compose the deployment on two GPUs with `overrides`."""
    return compose_overrides([*TWO_GPUS, *overrides]).settings
