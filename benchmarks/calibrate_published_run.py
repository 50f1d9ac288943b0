"""Fit the simulated rack to the published run of the default configuration and print how near it comes.

    python benchmarks/calibrate_published_run.py          errors of the configuration as it stands
    python benchmarks/calibrate_published_run.py --fit    search the calibration first (some minutes)

Every figure is the mean over ten orders of lengths (length_seed 0..9) on LoadGen's own arrival schedule. What
is fitted: prefill_scale, decode_scale, last_decode_worker_scale, ttft_overhead_s, inputs.sd_tokens and
outputs.cap_frac, by Nelder-Mead on squared log ratios.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.optimize import minimize

from tune.config import compose_overrides
from tune.results.requests import FloatArray
from tune.sim.rack import simulate
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

PUBLISHED = {
    "ttft_s": {"mean": 1.5216, "p50": 1.3899, "p90": 2.5083, "p95": 2.965, "p97": 3.3317, "p99": 4.2158},
    "tpot_s": {"mean": 0.04834, "p50": 0.0452, "p90": 0.05804, "p95": 0.0585, "p97": 0.05871, "p99": 0.05902},
    "latency_s": {"mean": 31.886, "p50": 31.932, "p90": 47.685, "p95": 51.799, "p97": 54.485, "p99": 65.644},
    "output_tps": {"mean": 9917.58},
}
"""Source: LoadGen's summary of NVIDIA's MLPerf Inference v5.1 open-division run (GB200-NVL72, Dynamo)."""

FITTED = ("ttft_s", "tpot_s", "latency_s")
START = (
    ("cluster.calibration.prefill_scale", 0.9),
    ("cluster.calibration.ttft_overhead_s", 0.1),
    ("load.dataset.inputs.sd_tokens", 3800.0),
    ("cluster.calibration.decode_scale", 1.08),
    ("cluster.calibration.last_decode_worker_scale", 1.1),
    ("load.dataset.outputs.cap_frac", 0.006),
)
LENGTH_SEEDS = range(10)


def measure(spec: TrialSpec, calibration: Calibration, length_seed: int) -> dict[str, FloatArray]:
    """Latencies in seconds of every request and the output tokens/s over the schedule, of one run."""
    load = spec.load.model_copy(update={"length_seed": length_seed})
    log = simulate(spec.model_copy(update={"load": load}), calibration)
    after_first = (log.done_ns - log.first_token_ns)[log.output_tokens > 1]
    return {
        "ttft_s": (log.first_token_ns - log.scheduled_ns) / 1e9,
        "tpot_s": after_first / (log.output_tokens[log.output_tokens > 1] - 1) / 1e9,
        "latency_s": (log.done_ns - log.scheduled_ns) / 1e9,
        "output_tps": np.array([log.output_tokens.sum() / (log.scheduled_ns[-1] / 1e9)]),
    }


def figure(values: FloatArray, name: str) -> float:
    return float(values.mean() if name == "mean" else np.percentile(values, float(name[1:])))


def table(overrides: tuple[str, ...]) -> dict[tuple[str, str], FloatArray]:
    """Each published figure as simulated, one value a length seed."""
    settings = compose_overrides(overrides).settings
    spec = TrialSpec(**{name: getattr(settings, name) for name in TrialSpec.model_fields})
    assert settings.cluster.calibration is not None
    runs = [measure(spec, settings.cluster.calibration, seed) for seed in LENGTH_SEEDS]
    return {
        (quantity, name): np.array([figure(run[quantity], name) for run in runs])
        for quantity, names in PUBLISHED.items()
        for name in names
    }


def overrides_of(values: FloatArray) -> tuple[str, ...]:
    return tuple(f"{name}={value * start:.6g}" for (name, start), value in zip(START, values, strict=True))


def misfit(values: FloatArray) -> float:
    if (values <= 0).any():
        return 1e9
    found = table(overrides_of(values))
    ratios = [
        np.log(found[quantity, name].mean() / published)
        for quantity in FITTED
        for name, published in PUBLISHED[quantity].items()
    ]
    return float(np.sum(np.square(ratios)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--fit", action="store_true", help="search the calibration")
    overrides: tuple[str, ...] = ()
    if arguments.parse_args().fit:
        start = np.ones(len(START))
        simplex = np.vstack([start, start + 0.04 * np.eye(len(START))])
        options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-5, "maxfev": 300}
        overrides = overrides_of(minimize(misfit, start, method="Nelder-Mead", options=options).x)
        print("\n".join(overrides))
    print(f"{'':20}{'published':>10}{'simulated':>11}{'sd':>9}{'error %':>9}")
    for (quantity, name), values in table(overrides).items():
        published = PUBLISHED[quantity][name]
        error = (values.mean() / published - 1) * 100
        print(f"{quantity:14}{name:6}{published:10.4f}{values.mean():11.4f}{values.std():9.4f}{error:9.1f}")


if __name__ == "__main__":
    main()
