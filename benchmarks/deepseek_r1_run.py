"""Compare a published run of DeepSeek-R1 with the simulated rack: attention DP, multi-token prediction.

    python benchmarks/deepseek_r1_run.py [--shuffles 5] [--fit]

The run is NVIDIA's MLPerf Inference v6.0 submission of DeepSeek-R1 Interactive on 72 GB200: two prefill
workers of 4 ranks and four decode workers of 16, attention DP in both, three draft tokens, 144,804 queries at
64 queries/s. Step times are those that AIConfigurator interpolates from kernels measured on GB200
(benchmarks/data/deepseek_r1_gb200/README.md). The answers of the dataset are scaled to the run's mean. Four
parameters are fitted to four figures: TTFT mean and p99, TPOT mean and p99; every other figure is predicted.
--fit fits them anew.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from tune.calibrate.compared_metrics import ALL_METRICS, MetricName, MetricValues
from tune.calibrate.measured_runs import MeasuredRun, run_of_logs
from tune.calibrate.parameters import with_values
from tune.calibrate.replay import FIT_SEEDS, simulate_run
from tune.config import compose_overrides
from tune.core.arrays import FloatArray
from tune.spec.cluster import Calibration
from tune.spec.metrics import TPOT, TTFT
from tune.spec.trial import TrialSpec

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "tests" / "data" / "loadgen" / "v6.0.8_deepseek_r1_published"
STEPS = ROOT / "benchmarks" / "data" / "deepseek_r1_gb200" / "steps.csv"

LENGTHS = ROOT / "tune" / "workload" / "data" / "mlperf_deepseek_r1.csv"
COUNTED_TOKENS = 241_314.0 / 64.1621
"""Mean tokens of an answer in the run: its tokens and its queries a second, by its detail log."""

DRAFTS = "speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 3}"
OVERRIDES = (
    *("hardware=gb200_nvl72", "model=deepseek_r1_fp4", "stack=dynamo_v07", "stack.router_mode=kv"),
    *("split.prefill_workers=2", "split.decode_workers=4", "split.frontends=4"),
    *("load=mlperf_deepseek_r1", "load.mode=fixed", "load.target_qps=64", "load.min_queries=144000"),
    *("slo=deepseek_r1_interactive", "prefill.tensor_parallel_size=4", "prefill.max_batch_size=8"),
    *("prefill.max_num_tokens=8192", "prefill.max_seq_len=3300"),
    f"+prefill.extra={{enable_attention_dp: true, moe_expert_parallel_size: 4, {DRAFTS}}}",
    *("decode.tensor_parallel_size=16", "decode.max_batch_size=64", "decode.max_num_tokens=6144"),
    *("decode.max_seq_len=23200", "decode.stream_interval=100"),
    "decode.kv_cache_config.free_gpu_memory_fraction=0.9",
    "decode.cuda_graph_config.batch_sizes=[1,2,4,8,12,16,20,24,28,32,36,40,44,48,52,56,60,64]",
    "decode.scheduler_config={capacity_scheduler_policy: MAX_UTILIZATION}",
    f"+decode.extra={{enable_attention_dp: true, moe_expert_parallel_size: 16, {DRAFTS}}}",
    *(f"cluster.calibration.{phase}_steps={STEPS}" for phase in ("prefill", "decode")),
)
"""The run's configuration. Source: inference_results_v6.0, closed/NVIDIA/configs,
GB200-NVL72_GB200-186GB_aarch64x72/Interactive/deepseek-r1.py (workers, frontends, router, rate) and
GB200-NVL72_GB200-186GB_aarch64x16/Interactive/disagg_decode/deepseek-r1.yml (decode engine). The file of the
prefill engine was not found: its batch, token budget and draft tokens are assumed."""

VALUES = {"prefill_scale": 0.888, "decode_scale": 0.726, "ttft_overhead_s": 0.161, "draft_spread_frac": 0.071}
"""The parameters as fitted."""

FITTED: tuple[MetricName, ...] = tuple(
    (latency.field, statistic) for latency in (TTFT, TPOT) for statistic in ("mean", "p99")
)
"""The figures of the run that they are fitted to."""


def published_trial(folder: Path) -> tuple[TrialSpec, Calibration]:
    """Return the run's trial, and the calibration with the tables; the scaled dataset is in `folder`."""
    with LENGTHS.open(encoding="utf-8", newline="") as file:
        rows = [(int(prompt), int(answer)) for prompt, answer in list(csv.reader(file))[1:]]
    scale = COUNTED_TOKENS / (sum(answer for _, answer in rows) / len(rows))
    lengths = folder / "lengths.csv"
    text = [f"{prompt},{max(1, round(scale * answer))}" for prompt, answer in rows]
    lengths.write_text("\n".join(["input_tokens,output_tokens", *text]) + "\n", encoding="utf-8")
    settings = compose_overrides((*OVERRIDES, f"load.dataset.path={lengths}")).settings
    assert settings.cluster.calibration is not None
    return settings.trial_spec, settings.cluster.calibration


def mean_metrics(
    run: MeasuredRun, calibration: Calibration, values: dict[str, float], shuffles: range | tuple[int, ...]
) -> MetricValues:
    """Return the means over `shuffles` of the simulated figures."""
    simulated = simulate_run(run, with_values(calibration, values), {}, shuffles)
    return {
        metric: float(np.mean([figures[metric] for figures in simulated]))
        for metric in ALL_METRICS
        if metric in simulated[0]
    }


def fitted_values(run: MeasuredRun, calibration: Calibration) -> dict[str, float]:
    """Return the parameters with which the fitted figures come nearest to the run's, over two shuffles."""
    names = tuple(VALUES)

    def errors(point: FloatArray) -> list[float]:
        simulated = mean_metrics(run, calibration, dict(zip(names, point, strict=True)), FIT_SEEDS[:2])
        return [float(np.log(simulated[metric] / run.metrics[metric])) for metric in FITTED]

    bounds = ([0.2, 0.2, 0.0, 0.0], [2.0, 2.0, 1.0, 0.3])
    found = least_squares(errors, list(VALUES.values()), bounds=bounds, diff_step=0.02, max_nfev=12)
    return dict(zip(names, found.x.tolist(), strict=True))


def main() -> None:
    """Print each figure of the run beside its mean over shuffles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--fit", action="store_true", help="fit the four parameters anew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec, calibration = published_trial(Path(folder))
        run = run_of_logs(LOGS, spec)
        values = fitted_values(run, calibration) if options.fit else VALUES
        simulated = mean_metrics(run, calibration, values, range(options.shuffles))
    print(f"{run.spec.split.label}, {run.spec.load.target_qps:g} queries/s, {options.shuffles} shuffles")
    print(", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    for metric, measured in run.metrics.items():
        if metric in simulated:
            kind = "fitted" if metric in FITTED else "predicted"
            error = simulated[metric] / measured - 1
            print(
                f"{metric[0]:13} {metric[1]:4} {measured:9.5g} {simulated[metric]:9.5g} {error:+7.1%}  {kind}"
            )


if __name__ == "__main__":
    main()
