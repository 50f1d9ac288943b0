"""Draw benchmark racks with hidden parameters.

A rack is the simulated one with other constants. It changes the calibration by configuration, and the
hardware, memory, routing and prompts of the trial before it is simulated. Every rack has one or two of
MECHANISMS, which no parameter of the calibration can describe. A few percent of the configurations crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from synthetic_racks.space import CONFIGURATIONS, PRIOR, SEED
from tune.core.arrays import FloatArray
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

MECHANISMS = ("decode_neighbours", "long_prompts", "large_chunks", "shared_fabric")
"""Names of effects without a parameter in the calibration.

`decode_neighbours`: decode steps take longer by a fraction for each further decode worker, as if they met on
the head's switch. `long_prompts`: attention in prefill is slower by a factor, so that long prompts suffer.
`large_chunks`: prefill steps take longer by a fraction for each doubling of the chunk above 2,048 tokens.
`shared_fabric`: prefill workers share the links that transfer the KV cache.
"""


@dataclass(frozen=True)
class Rack:
    """Hold factors on the prior calibration by name, hidden from methods.

    A factor of 1 and an addend of 0 mean that the prior is right.
    """

    seed: int
    factors: Mapping[str, float]
    prefill_tp: Mapping[int, float]
    decode_tp: Mapping[int, float]
    large_batch_weight_reads: float
    last_decode_worker_scale: float
    head_node_scale: float
    router_mode: str
    mechanisms: Mapping[str, float]

    def calibration(self, spec: TrialSpec) -> Calibration:
        """Return the calibration with which `spec` is simulated on this rack."""
        workers, chunk = spec.split.decode_workers, spec.prefill.max_num_tokens
        scaled = {name: getattr(PRIOR, name) * self.factors[name] for name in _CALIBRATED}
        chunks = self.mechanisms.get("large_chunks", 0.0) * float(np.log2(chunk / 2048))
        near = self.mechanisms.get("decode_neighbours", 0.0) * (workers - 1)
        shared = self.mechanisms.get("shared_fabric", 0.0) * (spec.split.prefill_workers - 1)
        scaled["prefill_scale"] *= self.prefill_tp[spec.prefill.tensor_parallel_size] * (1 + chunks)
        scaled["decode_scale"] *= self.decode_tp[spec.decode.tensor_parallel_size] * (1 + near)
        scaled["kv_transfer_bytes_per_s"] /= 1 + shared
        switched = {
            "large_batch_weight_reads": self.large_batch_weight_reads,
            "last_decode_worker_scale": self.last_decode_worker_scale,
            "head_node_scale": self.head_node_scale,
        }
        return PRIOR.model_copy(update=scaled | switched)

    def deployed(self, spec: TrialSpec) -> TrialSpec:
        """Return `spec` with the hardware, memory, router and prompts of this rack."""
        slow = self.mechanisms.get("long_prompts", 1.0)
        hardware = spec.hardware.model_copy(
            update={
                "nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s / self.factors["all_reduce"],
                "fp8_flop_per_s": spec.hardware.fp8_flop_per_s / slow,
            }
        )
        memory = spec.decode.kv_cache_config
        frac = memory.free_gpu_memory_fraction * self.factors["kv_capacity"]
        kv = memory.model_copy(update={"free_gpu_memory_fraction": frac})
        inputs = spec.load.dataset.inputs
        spread = inputs.model_copy(
            update={
                "mean_tokens": inputs.mean_tokens * self.factors["prompt_mean"],
                "sd_tokens": inputs.sd_tokens * self.factors["prompt_sd"],
            }
        )
        dataset = spec.load.dataset.model_copy(update={"inputs": spread})
        return spec.model_copy(
            update={
                "hardware": hardware,
                "decode": spec.decode.model_copy(update={"kv_cache_config": kv}),
                "stack": spec.stack.model_copy(update={"router_mode": self.router_mode}),
                "load": spec.load.model_copy(update={"dataset": dataset}),
            }
        )

    def crashes(self) -> frozenset[int]:
        """Return the indices of the configurations that crash.

        3 to 6 % crash by a rule that is smooth in the logarithms of their settings, 2 to 4 % at random. The
        seed's configuration never does: its user runs it.
        """
        draws = np.random.default_rng([self.seed, 1])
        settings = np.log2(np.array([each.values for each in CONFIGURATIONS], float))
        settings = (settings - settings.mean(0)) / settings.std(0)
        score = settings @ draws.normal(size=settings.shape[1])
        count = len(CONFIGURATIONS)
        by_rule = np.argsort(score)[-round(draws.uniform(0.03, 0.06) * count) :]
        by_chance = draws.choice(count, round(draws.uniform(0.02, 0.04) * count), replace=False)
        return frozenset({*by_rule.tolist(), *by_chance.tolist()} - {SEED})


_CALIBRATED = (
    "prefill_scale",
    "decode_scale",
    "ttft_overhead_s",
    "frontend_message_s",
    "kv_transfer_bytes_per_s",
    "no_overlap_overhead_s",
)


def draw_rack(seed: int) -> Rack:
    """Draw the rack of `seed`.

    Kernels are 0.6 to 1.6 times as slow as the prior's; the widths of the others are chosen here.
    """
    draws = np.random.default_rng([seed, 0])

    def factor(low: float, high: float) -> float:
        return float(np.exp(draws.uniform(np.log(low), np.log(high))))

    slow_network = draws.random() < 0.2
    factors = {
        "prefill_scale": factor(0.6, 1.6),
        "decode_scale": factor(0.6, 1.6),
        "ttft_overhead_s": factor(0.5, 4),
        "frontend_message_s": factor(0.5, 2),
        "kv_transfer_bytes_per_s": factor(0.02, 0.1) if slow_network else factor(0.5, 2),
        "no_overlap_overhead_s": factor(0.5, 2),
        "all_reduce": factor(0.6, 2),
        "kv_capacity": float(draws.uniform(0.7, 1.0)),
        "prompt_mean": factor(0.95, 1.05),
        "prompt_sd": factor(0.8, 1.2),
    }
    tp: FloatArray = np.exp(draws.normal(0, 0.1, 5))
    chosen = draws.choice(MECHANISMS, int(draws.integers(1, 3)), replace=False)
    strength = {
        "decode_neighbours": float(draws.uniform(0.01, 0.04)),
        "long_prompts": float(draws.uniform(1.3, 2.5)),
        "large_chunks": float(draws.uniform(0.02, 0.08)),
        "shared_fabric": float(draws.uniform(0.05, 0.5)),
    }
    return Rack(
        seed=seed,
        factors=factors,
        prefill_tp=dict(zip((2, 4, 8), tp[:3].tolist(), strict=True)),
        decode_tp=dict(zip((4, 8), tp[3:].tolist(), strict=True)),
        large_batch_weight_reads=float(draws.choice([0.0, 1.0, 2.0])),
        last_decode_worker_scale=float(draws.choice([1.0, 1.0, 1.15, 1.3])),
        head_node_scale=float(draws.choice([1.0, 1.0, 1.1, 1.2])),
        router_mode=str(draws.choice(["round-robin", "round-robin", "random", "least-loaded"])),
        mechanisms={name: strength[name] for name in MECHANISMS if name in chosen},
    )
