"""The rack that a search learned, asked by the full simulator about the trials that matter most."""

from __future__ import annotations

from collections.abc import Iterator

from tune.results.folder import StudyFolder
from tune.sim.forecast import RackForecast
from tune.spec.cluster import Calibration

MOST = 3
"""A trial takes five to ten seconds."""


def recheck(study: StudyFolder, calibration: Calibration) -> Iterator[str]:
    """A table of the best trials of `study` whose highest rate was searched for, up to MOST: the measured
    boundary beside that on the rack of `calibration`. Nothing where there are none."""
    measured = [one for one in study.outcomes() if one.feasible and one.capacity_qps.boundary]
    best = sorted(measured, key=lambda one: -(one.capacity_qps.boundary or 0.0) / one.gpus)[:MOST]
    if best:
        yield f"{'trial':>5}  {'split':12}{'measured':>10}{'this rack':>11}{'error':>9}  queries/s"
    for one in best:
        spec, boundary_qps = study.trial(one.trial_id).read_spec(), one.capacity_qps.boundary
        if not spec or not boundary_qps:
            continue
        simulated_qps = RackForecast(spec, calibration).boundary_qps()
        error = simulated_qps / boundary_qps - 1
        yield f"{one.number:5}  {spec.split.label:12}{boundary_qps:10.2f}{simulated_qps:11.2f}{error:+9.1%}"
