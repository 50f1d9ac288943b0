"""Explain two published runs of one model by one set of hypotheses, and scales for each software version.

    python benchmarks/two_published_runs.py [--shuffles 40] [--fit]

The runs are NVIDIA's MLPerf Inference submissions of Llama-3.1-405B Interactive on 72 GB200: v5.1 (14 x TP4 +
4 x TP4, 15.75 queries/s) and v6.0 (14 x TP4 + 2 x TP8, 22.2 queries/s, four frontends). Lengths are those of
the dataset (load=mlperf_llama3_1_405b), answers scaled to the mean that each run counted. Prefill and decode
scale and the overhead of the frontend are fitted to four figures of each run (TTFT mean and p99, TPOT mean
and p90); every other figure is predicted. --fit fits them anew, some minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tune.calibrate.compared_metrics import ALL_METRICS, FITTED_METRICS
from tune.calibrate.fit import fit, fitted_values
from tune.calibrate.measured_runs import run_of_logs
from tune.calibrate.parameters import find_parameters, with_values
from tune.calibrate.replay import simulate_run
from tune.calibrate.tables import render_parameters
from tune.cli.progress import evaluations_progress
from tune.config import compose_overrides
from tune.spec.metrics import TPOT, TTFT

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "tests" / "data" / "loadgen"
HYPOTHESES = {"large_batch_weight_reads": 1.0}
"""What holds for both runs: decode steps read the weights once more above 128 sequences."""

FILLED_S = 10.0
"""p99 TTFT in seconds from which a shuffle filled the KV cache of a decode worker."""


class PublishedRun(NamedTuple):
    """Hold a run: its logs, the overrides of its configuration, and the parameters fitted to it."""

    logs: Path
    overrides: tuple[str, ...]
    config_dirs: tuple[str, ...]
    values: dict[str, float]


RUNS = {
    "v5.1": PublishedRun(
        LOGS / "v5.0.25_published",
        ("load=mlperf_llama3_1_405b",),
        (),
        {"prefill_scale": 0.889, "decode_scale": 1.088, "ttft_overhead_s": 0.108},
    ),
    "v6.0": PublishedRun(
        LOGS / "v6.0.8_published",
        (
            *("+recipe=gb200_nvl72", "load=mlperf_llama3_1_405b", "load.target_qps=22.2"),
            *("load.min_queries=49878", "load.dataset.outputs.mean_tokens=638.3"),
        ),
        (str(ROOT / "examples" / "mlperf_v6_0"),),
        {"prefill_scale": 0.696, "decode_scale": 0.828, "ttft_overhead_s": 0.145},
    ),
}


def print_run(name: str, published: PublishedRun, shuffles: int, *, refit: bool) -> None:
    """Print each figure of a run beside its mean over those shuffles that leave the KV cache unfilled."""
    settings = compose_overrides(published.overrides, published.config_dirs).settings
    run = run_of_logs(published.logs, settings.trial_spec)
    assert settings.cluster.calibration is not None
    calibration = with_values(settings.cluster.calibration, HYPOTHESES | published.values)
    if refit:
        parameters = find_parameters(tuple(published.values), calibration, run.spec.load.dataset)
        with evaluations_progress() as progress:
            fitted = fit((run,), calibration, parameters, progress)
        print(render_parameters(fitted))
        calibration = with_values(calibration, fitted_values(fitted))
    simulated = simulate_run(run, calibration, {}, range(shuffles))
    steady = [values for values in simulated if values[TTFT.field, "p99"] < FILLED_S]
    print(f"\n{name}: {run.spec.split.label}, {run.spec.load.target_qps:g} queries/s")
    print(", ".join(f"{key} {getattr(calibration, key):.4g}" for key in published.values))
    print(f"{len(steady)} of {shuffles} shuffles; in the others the KV cache of a decode worker fills")
    for metric in ALL_METRICS:
        if metric[0] not in (TTFT.field, TPOT.field):
            continue
        values = np.array([figures[metric] for figures in steady])
        measured, mean = run.metrics[metric], float(values.mean())
        kind = "fitted" if metric in FITTED_METRICS else "predicted"
        print(f"{metric[0]:7} {metric[1]:4} {measured:8.4g} {mean:8.4g}  {mean / measured - 1:+6.1%}  {kind}")


def main() -> None:
    """Print both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=40)
    parser.add_argument("--fit", action="store_true", help="fit the three parameters of each run anew")
    options = parser.parse_args()
    for name, published in RUNS.items():
        print_run(name, published, options.shuffles, refit=options.fit)


if __name__ == "__main__":
    main()
