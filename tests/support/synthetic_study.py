"""Build studies for the tests of the report: outcomes from closed formulas, no simulation, no files."""

from __future__ import annotations

import math
import random
from typing import Any

from support.probes import BOTTLENECK, percentiles, spread
from tune.records.outcome import (
    LATENCY_FIELDS,
    Attempt,
    Breakdown,
    CapacityQps,
    Constraints,
    Outcome,
    Probe,
    ShuffleSpread,
)
from tune.records.study_record import StudyRecord
from tune.spec.load import Slo
from tune.spec.space import (
    Dimension,
    FloatDimension,
    GraphFamilyDimension,
    IntDimension,
    OrderedDimension,
    Search,
)

SLO = Slo(ttft_p99_s=4.5, tpot_p99_s=0.08)
GPUS = 72

SPLIT_SPACE: dict[str, Dimension] = {
    "prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=10, high=17),
    "prefill_max_num_tokens": OrderedDimension(
        kind="ordered", path="prefill.max_num_tokens", values=(2048, 4096, 8192)
    ),
    "decode_cuda_graphs": GraphFamilyDimension(
        kind="graph_family", path="decode", values=("listed", "powers_of_two", "none")
    ),
    "target_qps": FloatDimension(kind="float", path="load.target_qps", low=8.0, high=22.0),
}
RATE_SPACE: dict[str, Dimension] = {
    "target_qps": FloatDimension(kind="float", path="load.target_qps", low=8.0, high=21.0, step=0.5)
}


def study(**changes: Any) -> StudyRecord:
    """Return the record of a finished study of the split, run by the simulator."""
    return StudyRecord(
        **{
            "schema": 2,
            "name": "pd_split-sim",
            "question": "Which split and which rate give the most output tokens/s per GPU under the SLO?",
            "backend": "sim",
            "stack": "dynamo_v0",
            "engine": "trtllm",
            "model": "llama3.1-405b-fp4",
            "hardware": "gb200-nvl72",
            "nodes": 18,
            "gpus_per_node": 4,
            "gpus": GPUS,
            "slo": SLO,
            "space": SPLIT_SPACE,
            "fill_decode": True,
            "search": Search(name="tpe", startup_trials=10),
            "seed": 7,
            "n_trials": 12,
            "parallel": 2,
            "max_gpu_hours": None,
            "baseline": True,
            "base_hash": "0123456789ab",
            "cluster_hash": "ba9876543210",
            "command": ("+sweep=pd_split", "study.seed=7"),
            "versions": {"tune": "0.1.0", "python": "3.11.2"},
            **changes,
        }
    )


def synthetic_trial(
    number: int,
    *,
    prefill: int = 14,
    qps: float = 15.75,
    tps_gpu: float | None = None,
    ttft_p99_s: float = 4.2158,
    tpot_p99_s: float = 0.05902,
    slo: Slo = SLO,
    valid: bool = True,
    reason: str | None = None,
    **changes: Any,
) -> Outcome:
    """Return a measured trial; its verdict follows from its percentiles and the limits."""
    rate = GPUS * tps_gpu / 629.9 if tps_gpu else qps
    tps_gpu = tps_gpu if tps_gpu is not None else 629.9 * qps / GPUS
    constraints = Constraints(
        ttft_p99=None if slo.ttft_p99_s is None else math.log(ttft_p99_s / slo.ttft_p99_s),
        tpot_p99=None if slo.tpot_p99_s is None else math.log(tpot_p99_s / slo.tpot_p99_s),
    )
    held = all(value is None or value <= 0 for value in (constraints.ttft_p99, constraints.tpot_p99))
    figures: dict[str, Any] = {
        "target_qps": qps,
        "valid": valid,
        "feasible": valid and held,
        "output_tps_per_gpu": tps_gpu,
        "output_tps": tps_gpu * GPUS,
        "loadgen_tps": tps_gpu * GPUS * 1.001,
        "completed_qps": rate,
        "ttft_s": percentiles(ttft_p99_s),
        "tpot_s": percentiles(tpot_p99_s),
        "latency_s": percentiles(65.6),
        "constraints": constraints,
        "breakdown": Breakdown(
            queue_s=0.2 * ttft_p99_s,
            prefill_s=0.9,
            transfer_s=0.03,
            slot_s=0.01,
            first_step_s=0.045,
            prefill_utilisation=0.85,
            decode_batch=119.0,
            kv_used_frac=0.61,
            tail_queue_s=0.5 * ttft_p99_s,
            tail_prefill_s=1.8,
            tail_transfer_s=0.04,
            tail_slot_s=0.02,
            tail_first_step_s=0.05,
            decode_batch_max=130.0,
        ),
        "bottleneck": BOTTLENECK if valid else None,
        "spread": _spread_near(ttft_p99_s, held, slo) if valid else None,
    }
    probe = Probe(
        **figures, queries=16626, loadgen_result="VALID" if held else "INVALID", reason=reason, raw="raw/1/0"
    )
    return outcome(number, "measured", reason, prefill=prefill, **{**figures, "probes": (probe,), **changes})


def _spread_near(ttft_p99_s: float, held: bool, slo: Slo) -> ShuffleSpread | None:
    """Return a spread if p99 TTFT is within 25 % of its limit; more shuffles hold with more slack."""
    if slo.ttft_p99_s is None or abs(ttft_p99_s / slo.ttft_p99_s - 1) > 0.25:
        return None
    slack = 1 - ttft_p99_s / slo.ttft_p99_s
    return spread(min(5, max(int(held), round(2.5 + 20 * slack))), ttft_p99_s)


def unmeasured(number: int, status: str, reason: str | None, **changes: Any) -> Outcome:
    """Return a trial that is infeasible or failed."""
    return outcome(number, status, reason, **changes)


def outcome(number: int, status: str, reason: str | None, *, prefill: int = 14, **changes: Any) -> Outcome:
    """Return a trial without figures; `changes` replaces fields."""
    qps = changes.get("target_qps", 15.75)
    point = {
        "prefill_workers": prefill,
        "prefill_max_num_tokens": (2048, 4096, 8192)[number % 3],
        "decode_cuda_graphs": ("listed", "powers_of_two", "none")[number % 3],
        "target_qps": qps,
    }
    overrides = [
        f"split.prefill_workers={prefill}",
        f"split.decode_workers={18 - prefill}",
        f"prefill.max_num_tokens={point['prefill_max_num_tokens']}",
        "decode.cuda_graph_config.batch_sizes=[1,2,4,8]",
        f"load.target_qps={qps:.6g}",
    ]
    attempt = Attempt.model_validate(
        {
            "started_at": f"2026-03-01T{number % 24:02}:00:00Z",
            "ended_at": f"2026-03-01T{number % 24:02}:41:00Z",
            "gpu_hours": 49.2,
            "class": status,
        }
    )
    absent: dict[str, Any] = dict.fromkeys(
        (
            "output_tps_per_gpu",
            "output_tps",
            "loadgen_tps",
            "completed_qps",
            *LATENCY_FIELDS,
            "breakdown",
            "spread",
            "bottleneck",
        )
    )
    return Outcome(
        **{
            "schema": 2,
            "trial_id": f"{number:012x}",
            "number": number,
            "source": "baseline" if number == 0 else "tpe",
            "status": status,
            "reason": reason,
            "valid": False,
            "feasible": False,
            "gpus": GPUS,
            "target_qps": qps,
            "capacity_qps": CapacityQps(low=None, high=None, stopped_early=False),
            "constraints": Constraints(ttft_p99=None, tpot_p99=None),
            "probes": (),
            "attempts": (attempt,),
            "gpu_hours": 49.2,
            "wall_s": 2460.0,
            "provenance": {"params": point, "overrides": overrides, "split": f"{prefill}P{18 - prefill}D"},
            **absent,
            **changes,
        }
    )


def mixed(count: int, seed: int = 1) -> list[Outcome]:
    """Return the baseline and `count` - 1 trials with random splits and rates, of every status."""
    draw = random.Random(seed)
    outcomes = [synthetic_trial(0)]
    for number in range(1, count):
        prefill, qps, kind = draw.randint(10, 17), round(draw.uniform(8.0, 22.0), 3), draw.random()
        if kind < 0.05:
            reason = f"{prefill} prefill workers of 4 GPUs leave no room for a decode worker"
            outcomes.append(unmeasured(number, "infeasible", reason, prefill=prefill, target_qps=qps))
        elif kind < 0.1:
            outcomes.append(
                unmeasured(number, "failed", "node gb07 went down", prefill=prefill, target_qps=qps)
            )
        else:
            outcomes.append(_measured_at(number, prefill, qps, draw))
    return outcomes


def _measured_at(number: int, prefill: int, qps: float, draw: random.Random) -> Outcome:
    """Return a measured trial of this split and rate, with random noise."""
    prefill_load = qps / (1.33 * prefill)
    in_flight = min(195.0, 7.6 * qps / (18 - prefill))
    ttft = 1.1 + 1.3 * prefill_load**4 + 60 * max(0.0, prefill_load - 0.9) ** 1.2
    tpot = 0.012 + 0.00038 * in_flight
    done_qps = min(qps, 1.33 * prefill, 6.0 * (18 - prefill))
    return synthetic_trial(
        number,
        prefill=prefill,
        qps=qps,
        tps_gpu=629.9 * done_qps / GPUS * draw.gauss(1, 0.004),
        ttft_p99_s=2 * ttft * draw.gauss(1, 0.05),
        tpot_p99_s=tpot * draw.gauss(1, 0.02),
        valid=draw.random() > 0.01,
        reason=None,
    )
