"""Simulate measured runs: with their recorded requests, or over many shuffles where lengths are unknown."""

from __future__ import annotations

from collections.abc import Sequence

from tune.calibrate.compared_metrics import MetricValues, metrics_of_requests
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import Values, with_dataset_values, with_values
from tune.sim.simulator import simulate_requests, simulate_serving
from tune.spec.cluster import Calibration

FIT_SEEDS = tuple(range(100, 106))
"""Shuffle seeds that a fit averages over where a run's lengths are not on record."""

REPORT_SEEDS = tuple(range(10))
"""Shuffle seeds of the reported metrics of such runs: none of them is fitted."""


def simulate_run(
    run: MeasuredRun, calibration: Calibration, values: Values, shuffle_seeds: Sequence[int]
) -> list[MetricValues]:
    """Return the metrics of `run` on the simulated rack with `values`.

    One element for recorded requests, else one for each of `shuffle_seeds`.
    """
    fitted_calibration = with_values(calibration, values)
    if run.recorded is not None:
        requests = run.recorded
        lengths = (requests.input_tokens, requests.output_tokens)
        return [
            metrics_of_requests(
                simulate_requests(run.spec, fitted_calibration, requests.scheduled_ns, lengths)
            )
        ]
    load = run.spec.load
    dataset = with_dataset_values(load.dataset, values)
    loads = [load.model_copy(update={"dataset": dataset, "shuffle_seed": seed}) for seed in shuffle_seeds]
    specs = [run.spec.model_copy(update={"load": load}) for load in loads]
    return [metrics_of_requests(simulate_serving(spec, fitted_calibration)) for spec in specs]
