"""Compute how long one engine step takes: a roofline fitted to measured steps.

Every term is linear in what a step does, so a step costs a few multiplications inside the serving loops.
Prefill and decode share one formula with equal costs of weights, GEMMs, activations, all-reduces and layers.
Only attention differs: it computes in prefill and reads the KV cache in decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from tune.core.arrays import FloatArray
from tune.errors import ConfigurationError
from tune.spec.base import FrozenModel, NonNegativeFloat
from tune.spec.engine import Engine
from tune.spec.hardware import Hardware
from tune.spec.memory import kv_bytes_per_token
from tune.spec.model import TIMED_WEIGHT_DTYPE, Model

GEMM_TILE_SEQUENCES = 256
"""Rows of a GEMM tile; part of a decode step costs whole tiles, whether filled or not.

Source: the measured decode steps (benchmarks/data/step_times), which jump between batch 256 and 288.
"""

TERMS = (
    "weights",
    "gemm",
    "gemm_tiles",
    "activations",
    "all_reduce",
    "attention",
    "kv",
    "layers",
    "all_reduces",
)
"""The rows of `step_terms`, in order."""

_BF16_BYTES = 2
"""Bytes of a BF16 element."""

_FP4_BYTES = 9 / 16
"""Bytes of an FP4 element: four bits and an 8-bit scale for every 16 elements. Source: the NVFP4 format."""


class Coefficients(FrozenModel):
    """Hold how many times its roofline each term costs (`layers`, `all_reduces`: seconds), and the source."""

    source: str
    coefficients: dict[str, NonNegativeFloat]


@dataclass(frozen=True)
class StepTimes:
    """Hold the seconds of one engine step of one worker, before calibration.

    Prefill step: step + token x new tokens + pair x sum of new x (context + new / 2) over the prompts.
    Decode step of B sequences: step + tile x ceil(B / 256) + sequence x B + context token x total context.
    """

    prefill_step_s: float
    prefill_token_s: float
    prefill_pair_s: float
    decode_step_s: float
    decode_tile_s: float
    decode_sequence_s: float
    decode_context_token_s: float

    @classmethod
    def of(cls, model: Model, hardware: Hardware, engine: Engine) -> StepTimes:
        """Return the step times of one tensor-parallel group that holds every layer.

        Raises ConfigurationError where the step times of the model's weights are not known.
        """
        _require_timed(model, engine)
        fitted = _coefficients().coefficients
        coefficients = np.array([fitted[name] for name in TERMS])
        return cls(*(coefficients @ step_terms(model, hardware, engine)).tolist())

    def decode_batch_s(self, batch: FloatArray) -> FloatArray:
        """Return the seconds of a decode step without context for each of `batch` (n,) sizes."""
        tiles = np.ceil(batch / GEMM_TILE_SEQUENCES)
        return self.decode_step_s + self.decode_tile_s * tiles + self.decode_sequence_s * batch


def _require_timed(model: Model, engine: Engine) -> None:
    """Raise ConfigurationError unless weights, layers and parallelism are of the kind that was measured."""
    for field, what in model.untimed.items():
        raise ConfigurationError(
            f"model.{field}: found {getattr(model, field)}, expected null: no step time of a model with "
            f"{what} is known. Measure on real engines with load.mode=fixed and another search than "
            "surrogate."
        )
    if engine.context_parallel > 1:
        raise ConfigurationError(
            f"{engine.KEYS['context_parallel']}: found {engine.context_parallel}, expected 1: no step time "
            "of a worker with context parallelism is known. Measure on real engines with load.mode=fixed "
            "and another search than surrogate."
        )
    if model.weight_dtype == TIMED_WEIGHT_DTYPE:
        return
    raise ConfigurationError(
        f"model.weight_dtype: found {model.weight_dtype}, expected {TIMED_WEIGHT_DTYPE}: the simulator times "
        f"every step by kernels that were measured with {TIMED_WEIGHT_DTYPE} weights alone. Serve a "
        f"checkpoint in {TIMED_WEIGHT_DTYPE}, or measure on real engines with load.mode=fixed and another "
        "search than surrogate."
    )


def step_terms(model: Model, hardware: Hardware, engine: Engine) -> FloatArray:
    """Return the roofline seconds of each of TERMS in each field of StepTimes, shape (9, 7).

    A step reads the weights once. A row (a new token) takes 2 FLOPs per parameter; the tiles term counts them
    for whole tiles, which prefill chunks fill. Attention takes 4 FLOPs per head element and pair in prefill,
    and reads the KV cache in decode. Two all-reduces per layer each cost a fixed time and their bytes, both
    2 (tp - 1) / tp times.

    Source: roofline model, Williams, Waterman and Patterson 2009; ring all-reduce, Patarasuk and Yuan 2009;
    time of a message as a start and a rate, Hockney 1994.
    """
    tp, layers = engine.tensor_parallel, model.layers
    fp8 = engine.kv_dtype in ("fp8", "nvfp4")
    attention_flop_per_s = hardware.fp8_flop_per_s if fp8 else hardware.bf16_flop_per_s
    weights_s = model.checkpoint_bytes / tp / hardware.hbm_bytes_per_s
    gemm_s = 2 * model.linear_parameters / tp / hardware.fp4_flop_per_s
    activations_s = layers * _activation_bytes(model, tp) / hardware.hbm_bytes_per_s
    steps = 2 * (tp - 1) / tp
    all_reduce_s = steps * 2 * layers * model.hidden_size * _BF16_BYTES / hardware.nvlink_bytes_per_s
    attention_s = 4 * layers * model.attention_heads * model.head_size / tp / attention_flop_per_s
    kv_s = kv_bytes_per_token(model, engine) / tp / hardware.hbm_bytes_per_s
    return np.array(
        [
            [weights_s, 0, 0, weights_s, 0, 0, 0],
            [0, gemm_s, 0, 0, 0, gemm_s, 0],
            [0, gemm_s, 0, 0, gemm_s * GEMM_TILE_SEQUENCES, 0, 0],
            [0, activations_s, 0, 0, 0, activations_s, 0],
            [0, all_reduce_s, 0, 0, 0, all_reduce_s, 0],
            [0, 0, attention_s, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, kv_s],
            [layers, 0, 0, layers, 0, 0, 0],
            [layers * steps, 0, 0, layers * steps, 0, 0, 0],
        ]
    )


def _activation_bytes(model: Model, tp: int) -> float:
    """Return the bytes that a row moves through each rank's HBM in a layer: BF16, and FP4 before each GEMM.

    Every rank holds whole rows around its two norms (GEMM output written and read, residual read and written,
    FP4 written and read). QKV, attention output, and the FFN's gate, up and product are split over ranks.
    """
    quantised = 2 * _FP4_BYTES
    heads = model.attention_heads * model.head_size / tp
    kv_heads = 2 * max(model.kv_heads, tp) * model.head_size / tp
    whole = 2 * (4 * _BF16_BYTES + quantised) * model.hidden_size
    attention = 2 * _BF16_BYTES * (heads + kv_heads) + (2 * _BF16_BYTES + quantised) * heads
    ffn = (4 * _BF16_BYTES + quantised) * model.ffn_size / tp
    return whole + attention + ffn


@lru_cache(maxsize=1)
def _coefficients() -> Coefficients:
    """Read the fitted coefficients."""
    text = files("tune.sim").joinpath("data/step_time_coefficients.json").read_text()
    return Coefficients.model_validate_json(text)
