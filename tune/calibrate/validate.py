"""The rack that a search learned, asked by the full simulator about the trials that matter most."""

from __future__ import annotations

from collections.abc import Iterator

from tune.capacity.simulator_forecast import SimulatorForecast
from tune.errors import ResumableError
from tune.records.folders import StudyFolder
from tune.spec.cluster import Calibration

MAX_TRIALS_CHECKED = 3
"""A trial takes five to ten seconds."""


def validate_learned(study: StudyFolder, calibration: Calibration) -> Iterator[str]:
    """A table of the best trials of `study` whose highest rate was searched for, up to MOST: the measured
    boundary beside that on the rack of `calibration`. Nothing where there are none.

    Raises ResumableError where the configuration of one of them is lost.
    """
    measured = [(one.capacity_qps.estimate or 0.0, one) for one in study.outcomes() if one.feasible]
    best = sorted(measured, key=lambda pair: -pair[0] / pair[1].gpus)[:MAX_TRIALS_CHECKED]
    best = [(capacity_qps, one) for capacity_qps, one in best if capacity_qps]
    if best:
        yield f"{'trial':>5}  {'split':12}{'measured':>10}{'this rack':>11}{'error':>9}  queries/s"
    for capacity_qps, one in best:
        trial = study.trial(one.trial_id)
        spec = trial.read_spec()
        if spec is None:
            raise ResumableError(
                f"{trial.root / 'spec.json'}: found none; expected what the trial ran. Restore it."
            )
        simulated_qps = SimulatorForecast(spec, calibration).capacity_qps()
        error = simulated_qps / capacity_qps - 1
        yield f"{one.number:5}  {spec.split.label:12}{capacity_qps:10.2f}{simulated_qps:11.2f}{error:+9.1%}"
