"""Check on the simulator what a wider range would gain, where the best value is the end of a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from tune.analysis.range_ends import RangeEnd, range_ends
from tune.errors import TuneError
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.checked_recommendations import MAX_RATE_STEPS, holds_in_every_shuffle, recorded_calibration
from tune.report.simulated_gain import SMALLEST_GAIN_FRAC, SimulatedTrial
from tune.spec.bind import bind_point
from tune.spec.space import OrderedDimension
from tune.spec.timed_rules import check_timed


def checked_range_ends(
    study: StudyRecord, best: Outcome, outcomes: Sequence[Outcome]
) -> tuple[RangeEnd, ...]:
    """Return the ends of ranges that may cut the answer, with what the simulator expects beyond them.

    Parameters
    ----------
    study
        The study. Its calibration on record, simulated or of a real rack, is that of the simulator.
    best
        Its best trial.
    outcomes
        All its trials.

    Returns
    -------
    tuple[RangeEnd, ...]
        The range goes as far as a gain is expected, the farthest value first, then the middle and the nearest
        one; `expected` is empty where none gains. Nothing is simulated in a closed loop, or without a
        calibration or the step times of the trial. An end that cannot be simulated is left out.
    """
    ends = range_ends(study, best, outcomes)
    base, sweep, calibration = study.base_spec, study.sweep, recorded_calibration(study)
    if not ends or base is None or sweep is None or calibration is None:
        return ends
    point = best.provenance["params"]
    spec = bind_point(base, sweep, point)
    if spec.load.is_closed_loop or check_timed(spec, calibration):
        return ends
    trial = SimulatedTrial(spec.model_copy(update={"load": spec.load.at(best.offered_qps)}), calibration)

    def checked() -> Iterator[RangeEnd]:
        for end in ends:
            try:
                if end.is_rate:
                    yield _checked_rate(trial, end)
                    continue
                for count in sorted({len(end.added), (len(end.added) + 1) // 2, 1}, reverse=True):
                    shorter = replace(end, added=end.added[:count])
                    changed = bind_point(base, sweep, {**point, end.name: shorter.wider})
                    load = changed.load.at(best.offered_qps)
                    gain = trial.expected_gain(changed.model_copy(update={"load": load}))
                    if gain:
                        yield replace(shorter, expected=gain)
                        break
                else:
                    yield replace(end, expected="")
            except TuneError:
                continue

    return tuple(checked())


def _checked_rate(trial: SimulatedTrial, end: RangeEnd) -> RangeEnd:
    """Return the end of a range of rates with the rate up to which the trial is expected to hold.

    A list of rates gets that one, as a doubled one is hardly the highest that holds.
    """
    held_qps = _held_qps(trial)
    least_qps = cast("float", end.value) * (1 + SMALLEST_GAIN_FRAC) if end.is_highest else end.wider
    if held_qps < cast("float", least_qps):
        return replace(end, expected="")
    is_listed = end.is_highest and isinstance(end.dimension, OrderedDimension)
    added = (held_qps,) if is_listed else end.added
    return replace(end, added=added, expected=f"holds at up to {held_qps:g} queries/s in every shuffle")


def _held_qps(trial: SimulatedTrial) -> float:
    """Return the highest rate, of three digits, that is expected to hold in every shuffle; 0 if none.

    It is sought below the highest one of the trial's own shuffle.
    """
    for step in range(MAX_RATE_STEPS if trial.highest_qps else 0):
        qps = float(f"{trial.highest_qps * (1 - SMALLEST_GAIN_FRAC * step):.3g}")
        if holds_in_every_shuffle(trial.measured, qps, trial.calibration):
            return qps
    return 0.0
