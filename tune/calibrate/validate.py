"""Check the calibration that a search learned: simulate the best trials in full."""

from __future__ import annotations

from collections.abc import Iterator

from tune.capacity.simulator_forecast import SimulatorForecast
from tune.records.folders import StudyFolder
from tune.spec.cluster import Calibration

MAX_TRIALS_CHECKED = 3
"""Largest number of trials that are simulated; each takes five to ten seconds."""


def validate_learned(study: StudyFolder, calibration: Calibration) -> Iterator[str]:
    """Yield a table of the best trials of `study` with a capacity search, up to MAX_TRIALS_CHECKED.

    A row compares the measured capacity with the simulated one under `calibration`. Yields nothing where
    there is no such trial. Raises ResumableError where the configuration of one is missing and cannot be
    composed again.
    """
    feasible = [outcome for outcome in study.outcomes() if outcome.feasible]
    measured = [(outcome.capacity_qps.estimate or 0.0, outcome) for outcome in feasible]
    best = sorted(measured, key=lambda pair: -pair[0] / pair[1].gpus)[:MAX_TRIALS_CHECKED]
    best = [(capacity_qps, outcome) for capacity_qps, outcome in best if capacity_qps]
    if best:
        yield f"{'trial':>5}  {'split':12}{'measured':>10}{'this rack':>11}{'error':>9}  queries/s"
    for capacity_qps, outcome in best:
        spec = study.spec_of(outcome)
        simulated_qps = SimulatorForecast(spec, calibration).capacity_qps()
        error = simulated_qps / capacity_qps - 1
        rates = f"{capacity_qps:10.2f}{simulated_qps:11.2f}"
        yield f"{outcome.number:5}  {spec.split.label:12}{rates}{error:+9.1%}"
