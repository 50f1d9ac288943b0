"""Compare a published closed-loop curve of DeepSeek-R1 with the simulated rack: drafts in a closed loop.

    python benchmarks/deepseek_r1_users.py [--shuffles 20] [--fit]

The curve is InferenceX's, of one prefill worker of four ranks and four decode workers of eight GPUs on 36
GB200, with three draft tokens and prompts and answers of 819 to 1,024 tokens; the figures are in CURVE. Step
times are those that AIConfigurator interpolates from kernels measured on GB200
(benchmarks/data/deepseek_r1_gb200/README.md). Four parameters are fitted to four figures of the point of 12
users: TTFT mean and p99, TPOT mean and p99; the other figures and both other points are predicted. The
benchmark sends ten queries of each user; here the first so many of a longer run count. --fit fits them anew.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from tune.calibrate.parameters import with_values
from tune.config import compose_overrides
from tune.core.arrays import FloatArray
from tune.loadgen.latencies import answered, latencies, percentiles_s
from tune.records.requests import first_requests
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.load import QUERIES_PER_USER
from tune.spec.trial import TrialSpec

DATA = Path(__file__).parent / "data" / "deepseek_r1_gb200"
CURVE, STEPS = DATA / "curve_tep8.csv", DATA / "steps_tep8.csv"
FITTED_USERS = 12

DRAFTS = "speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 3}"
OVERRIDES = (
    *("hardware=gb200_nvl72", "hardware.nodes=9", "model=deepseek_r1_fp4", "stack=dynamo_v1"),
    *("split.prefill_workers=1", "split.decode_workers=4"),
    *("load=fixed", "load.mode=concurrency", "load.target_qps=null"),
    *("load.dataset.inputs.range_ratio=0.8", "load.dataset.inputs.range_rule=inferencex"),
    *("slo.ttft_p99_s=null", "slo.tpot_p99_s=null"),
    *("prefill.tensor_parallel_size=4", "prefill.max_batch_size=16", "prefill.max_num_tokens=16384"),
    *("prefill.max_seq_len=2048", "prefill.kv_cache_config.free_gpu_memory_fraction=0.6"),
    f"+prefill.extra={{enable_attention_dp: true, moe_expert_parallel_size: 4, {DRAFTS}}}",
    *("decode.tensor_parallel_size=8", "decode.max_batch_size=8", "decode.max_num_tokens=32"),
    *("decode.max_seq_len=2088", "decode.stream_interval=100"),
    "decode.kv_cache_config.free_gpu_memory_fraction=0.9",
    "decode.cuda_graph_config.batch_sizes=[1,2,3,4,5,6,7,8]",
    f"+decode.extra={{moe_expert_parallel_size: 8, {DRAFTS}}}",
    *(f"cluster.calibration.{phase}_steps={STEPS}" for phase in ("prefill", "decode")),
)
"""The configuration. Source: NVIDIA/srt-slurm-recipes, recipes/multi-node/DeepSeek-R1/GB200/1k1k/trtllm,
1k1k-mtp_ctx1_gen4_tep8_batch8_eplb0_mtp3.yaml."""

VALUES = {"prefill_scale": 1.968, "decode_scale": 1.118, "ttft_overhead_s": 0.0244, "draft_spread_frac": 0.1}
"""The parameters as fitted."""

FITTED = ("ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "tpot_p99_s")
"""The figures of the point of FITTED_USERS that they are fitted to."""

PREDICTED = ("ttft_p50_s", "tpot_p50_s", "e2e_mean_s", "e2e_p99_s", "out_tok_s_per_all_gpu")
"""The other figures of every point."""


ITS_NAMES = {"latency": "e2e"}
"""Latencies whose names are others in the curve's file."""


@dataclass(frozen=True)
class Point:
    """Hold a point of the curve: its users and its measured figures."""

    users: int
    figures: Mapping[str, float]


def published_curve() -> list[Point]:
    """Return the points of the curve, in order of their users."""
    with CURVE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    names = (*FITTED, *PREDICTED)
    return [Point(int(row["concurrency"]), {name: float(row[name]) for name in names}) for row in rows]


def simulated_figures(
    spec: TrialSpec, calibration: Calibration, users: int, shuffles: Iterable[int]
) -> dict[str, float]:
    """Return the means over `shuffles` of the simulated figures of a number of users."""
    runs = [_figures(spec, calibration, users, shuffle) for shuffle in shuffles]
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


def _figures(spec: TrialSpec, calibration: Calibration, users: int, shuffle: int) -> dict[str, float]:
    """Return the figures of the first ten queries of each user."""
    load = spec.load.model_copy(update={"concurrency": users, "shuffle_seed": shuffle})
    log = simulate_serving(spec.model_copy(update={"load": load}), calibration)
    log = first_requests(log, QUERIES_PER_USER * users)
    figures: dict[str, float] = {}
    for metric, times_ns in latencies(log, answered(log)).items():
        name, times = ITS_NAMES.get(metric.name, metric.name), percentiles_s(times_ns)
        assert times is not None
        figures |= {f"{name}_mean_s": times.mean, f"{name}_p50_s": times.p50, f"{name}_p99_s": times.p99}
    output_tps = log.output_tokens.sum() / (log.done_ns.max() * 1e-9)
    return {**figures, "out_tok_s_per_all_gpu": float(output_tps) / spec.hardware.gpus}


def fitted_values(spec: TrialSpec, calibration: Calibration, point: Point) -> dict[str, float]:
    """Return the parameters with which the fitted figures come nearest to a point's, over ten shuffles."""
    names = tuple(VALUES)

    def errors(values: FloatArray) -> list[float]:
        tried = with_values(calibration, dict(zip(names, values, strict=True)))
        simulated = simulated_figures(spec, tried, point.users, range(10))
        return [float(np.log(simulated[name] / point.figures[name])) for name in FITTED]

    bounds = ([0.2, 0.2, 0.0, 0.0], [3.0, 2.0, 1.0, 0.4])
    found = least_squares(errors, list(VALUES.values()), bounds=bounds, diff_step=0.02, max_nfev=30)
    return dict(zip(names, found.x.tolist(), strict=True))


def main() -> None:
    """Print each figure of the curve beside its mean over shuffles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--fit", action="store_true", help="fit the four parameters anew")
    options = parser.parse_args()
    settings = compose_overrides((*OVERRIDES, f"load.concurrency={FITTED_USERS}")).settings
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    assert calibration is not None
    points = published_curve()
    (fitted,) = (point for point in points if point.users == FITTED_USERS)
    values = fitted_values(spec, calibration, fitted) if options.fit else VALUES
    print(f"{spec.split.label}, {options.shuffles} shuffles")
    print(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    calibration = with_values(calibration, values)
    for point in points:
        simulated = simulated_figures(spec, calibration, point.users, range(options.shuffles))
        for name, measured in point.figures.items():
            kind = "fitted" if point.users == FITTED_USERS and name in FITTED else "predicted"
            error = simulated[name] / measured - 1
            figures = f"{measured:9.4g} {simulated[name]:9.4g} {error:+7.1%}"
            print(f"{point.users:3} users  {name:21} {figures}  {kind}")


if __name__ == "__main__":
    main()
