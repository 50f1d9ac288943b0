"""How long one engine step takes: a roofline over model, hardware and parallelism, fitted to measured steps.

Every term is linear in what a step does, so a step costs a few multiplications inside the serving loops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np

from tune.results.requests import FloatArray
from tune.spec.engine import Engine
from tune.spec.hardware import Hardware
from tune.spec.memory import kv_bytes_per_token
from tune.spec.model import Model
from tune.spec.typed import NonNegativeFloat, Typed

GEMM_TILE_SEQUENCES = 256
"""Decode batches are computed in tiles of this many rows, the weights read again for each.

Source: the measured decode steps (benchmarks/data/step_times), which jump between batch 256 and 288.
"""

PREFILL_TERMS = ("weights", "gemm", "attention", "activations", "layers", "layers_log2_tp")
DECODE_TERMS = ("weights", "weight_tiles", "gemm", "kv", "all_reduce", "layers", "layers_log2_tp")

_BF16_BYTES = 2


class Coefficients(Typed):
    """How many times its roofline each term costs (`layers` terms: seconds); `source` says how fitted."""

    source: str
    prefill: dict[str, NonNegativeFloat]
    decode: dict[str, NonNegativeFloat]


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one engine step of one worker, before calibration.

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
        """Step times of one tensor-parallel group that holds every layer."""
        fitted = _coefficients()
        prefill = np.array([fitted.prefill[name] for name in PREFILL_TERMS])
        decode = np.array([fitted.decode[name] for name in DECODE_TERMS])
        return cls(
            *(prefill @ prefill_terms(model, hardware, engine)).tolist(),
            *(decode @ decode_terms(model, hardware, engine)).tolist(),
        )

    def decode_batch_s(self, batch: FloatArray) -> FloatArray:
        """The part of a decode step that does not depend on the context, for each batch size."""
        tiles = np.ceil(batch / GEMM_TILE_SEQUENCES)
        return self.decode_step_s + self.decode_tile_s * tiles + self.decode_sequence_s * batch


def prefill_terms(model: Model, hardware: Hardware, engine: Engine) -> FloatArray:
    """Roofline seconds of PREFILL_TERMS per (step, new token, attended pair); shape (6, 3).

    Weights and activations move through HBM, GEMMs take 2 FLOPs a parameter and token, attention 4 FLOPs a
    head element and pair; activations (read and written in BF16, by every rank) also stand for the
    all-reduce, which grows the same way. Source: roofline model, Williams, Waterman and Patterson 2009.
    """
    tp, layers = engine.tensor_parallel_size, model.layers
    flop_per_s = (
        hardware.fp8_flop_per_s if engine.kv_cache_config.dtype == "fp8" else hardware.bf16_flop_per_s
    )
    weights_s = model.checkpoint_bytes / tp / hardware.hbm_bytes_per_s
    gemm_s = 2 * model.linear_parameters / tp / hardware.fp4_flop_per_s
    attention_s = 4 * layers * model.attention_heads * model.head_size / tp / flop_per_s
    activations_s = layers * model.hidden_size * _BF16_BYTES / hardware.hbm_bytes_per_s
    return np.array(
        [
            [weights_s, 0, 0],
            [0, gemm_s, 0],
            [0, 0, attention_s],
            [0, activations_s, 0],
            [layers, 0, 0],
            [layers * math.log2(tp), 0, 0],
        ]
    )


def decode_terms(model: Model, hardware: Hardware, engine: Engine) -> FloatArray:
    """Roofline seconds of DECODE_TERMS per (step, tile, sequence, context token); shape (7, 4).

    Each step reads the weights and the KV cache of every sequence, and sums two BF16 activations a layer
    over the ranks: a ring all-reduce moves 2 (tp - 1) / tp of them. Source: roofline model as above.
    """
    tp, layers = engine.tensor_parallel_size, model.layers
    weights_s = model.checkpoint_bytes / tp / hardware.hbm_bytes_per_s
    gemm_s = 2 * model.linear_parameters / tp / hardware.fp4_flop_per_s
    kv_s = kv_bytes_per_token(model, engine) / tp / hardware.hbm_bytes_per_s
    reduced_bytes = 2 * layers * model.hidden_size * _BF16_BYTES
    all_reduce_s = reduced_bytes * 2 * (tp - 1) / tp / hardware.nvlink_bytes_per_s
    return np.array(
        [
            [weights_s, 0, 0, 0],
            [0, weights_s, 0, 0],
            [0, 0, gemm_s, 0],
            [0, 0, 0, kv_s],
            [0, 0, all_reduce_s, 0],
            [layers, 0, 0, 0],
            [layers * math.log2(tp), 0, 0, 0],
        ]
    )


@lru_cache(maxsize=1)
def _coefficients() -> Coefficients:
    text = files("tune.sim").joinpath("data/step_time_coefficients.json").read_text()
    return Coefficients.model_validate_json(text)
