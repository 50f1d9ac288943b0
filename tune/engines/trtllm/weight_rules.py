"""Check that TensorRT-LLM has kernels for the model's weights on the GPUs of the rack."""

from __future__ import annotations

from collections.abc import Iterator

from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.model import Model


def check_weights(model: Model, hardware: Hardware) -> Iterator[Finding]:
    """Yield an error for NVFP4 weights on GPUs without FP4 units."""
    if model.weight_dtype == "nvfp4" and hardware.fp4_flop_per_s <= hardware.bf16_flop_per_s:
        yield Finding(
            "error",
            "model.weight_dtype",
            f"nvfp4, of {model.name}, on {hardware.name}",
            "a checkpoint with FP8 or BF16 weights, or GPUs with FP4 units (Blackwell)",
            "TensorRT-LLM has no kernels for NVFP4 weights on GPUs before Blackwell",
            "TensorRT-LLM, docs/source/features/quantization.md (09d4c79), hardware support matrix",
        )
