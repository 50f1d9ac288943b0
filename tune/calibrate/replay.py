"""Measured runs on the simulated rack: the same requests where they are known, many orders where not."""

from __future__ import annotations

from collections.abc import Sequence

from tune.calibrate.compared_metrics import MetricValues, metrics_of_requests
from tune.calibrate.measured_runs import MeasuredRun
from tune.calibrate.parameters import Values, with_dataset_values, with_values
from tune.sim.simulator import serve, simulate
from tune.spec.cluster import Calibration

FIT_SEEDS = tuple(range(100, 106))
"""Length seeds that a fit averages over where a run's lengths are not on record."""

REPORT_SEEDS = tuple(range(10))
"""Length seeds of the figures that are reported then: none that was fitted."""


def simulate_run(
    run: MeasuredRun, calibration: Calibration, values: Values, shuffle_seeds: Sequence[int]
) -> list[MetricValues]:
    """Figures of `run` on the rack with `values`: one for recorded requests, else one a length seed."""
    rack = with_values(calibration, values)
    if run.asked is not None:
        known = run.asked
        return [
            metrics_of_requests(
                serve(run.spec, rack, known.scheduled_ns, (known.input_tokens, known.output_tokens))
            )
        ]
    load = run.spec.load
    dataset = with_dataset_values(load.dataset, values)
    loads = [load.model_copy(update={"dataset": dataset, "shuffle_seed": seed}) for seed in shuffle_seeds]
    return [metrics_of_requests(simulate(run.spec.model_copy(update={"load": each}), rack)) for each in loads]
