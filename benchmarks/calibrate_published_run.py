"""Compare the simulated rack with the published run of the default configuration, and fit it anew.

    python benchmarks/calibrate_published_run.py          errors of the configuration as it stands
    python benchmarks/calibrate_published_run.py --fit    and of fits, some minutes: one with each hypothesis
                                                          about the decode pool, one with none of them

The run is NVIDIA's MLPerf Inference v5.1 submission (tests/data/loadgen/v5.0.25_published). Its arrivals are
known and its lengths are not: every figure is the mean over shuffle seeds that no fit has seen. The fit is
that of action=calibrate, with two parameters of the dataset beside those of the rack.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tune.calibrate.comparison import compare_run
from tune.calibrate.fit import fit, fitted_values
from tune.calibrate.measured_runs import MeasuredRun, run_of_logs
from tune.calibrate.parameters import find_parameters, with_values
from tune.calibrate.tables import describe_seeds, render_parameters, render_runs
from tune.cli.progress import evaluations_progress
from tune.config import compose_overrides
from tune.spec.cluster import Calibration

PUBLISHED = Path(__file__).parents[1] / "tests" / "data" / "loadgen" / "v5.0.25_published"

PARAMETERS = (
    "prefill_scale",
    "decode_scale",
    "ttft_overhead_s",
    "load.dataset.inputs.sd_tokens",
    "load.dataset.outputs.cap_frac",
)

OFF = {"last_decode_worker_scale": 1.0, "large_batch_weight_reads": 0.0}
"""Hypotheses that could explain two kinds of TPOT in one run (conf/cluster/sim.yaml); values when off."""

STARTS = {"last_decode_worker_scale": 1.12, "large_batch_weight_reads": 1.0}
"""Where a fit starts: a trace of either explains nothing, so it must begin with enough."""


def print_fit(run: MeasuredRun, calibration: Calibration, hypothesis: str | None) -> None:
    """Fit with `hypothesis` on and the others off, and print the errors that remain."""
    on = {hypothesis: STARTS[hypothesis]} if hypothesis else {}
    start = with_values(calibration, OFF | on)
    parameters = find_parameters((*PARAMETERS, *on), start, run.spec.load.dataset)
    with evaluations_progress() as progress:
        fitted = fit((run,), start, parameters, progress)
    print(f"\nfitted with {hypothesis or 'no hypothesis'}")
    print(render_runs((run,), [compare_run(run, start, fitted_values(fitted))]))
    print(f"\n{render_parameters(fitted)}\nseeds: {describe_seeds((run,))}")


def main() -> None:
    """Print the errors of the configuration and, on demand, of fits."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--fit", action="store_true", help="fit with each hypothesis, and with none")
    settings = compose_overrides(()).settings
    calibration = settings.cluster.calibration
    assert calibration is not None
    options = arguments.parse_args()
    run = run_of_logs(PUBLISHED, settings.trial_spec)
    print("the configuration as it stands")
    print(render_runs((run,), [compare_run(run, calibration, {})]))
    if options.fit:
        for hypothesis in (*OFF, None):
            print_fit(run, calibration, hypothesis)


if __name__ == "__main__":
    main()
