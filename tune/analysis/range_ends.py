"""Find the dimensions of a sweep whose range ends at the best value, and how far it can be widened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.spec.bind import Point, bind_point
from tune.spec.space import Dimension, FloatDimension, IntDimension, Sweep, Value
from tune.spec.sweep_overrides import overrides_for
from tune.spec.trial import TrialSpec

_RATE = "load.target_qps"

_TIE_FRAC = 0.001
"""A dimension decides nothing where a trial with another value of it gives as much, to this share."""

_MOST_STEPS = 16
"""Most values beyond the end that a proposal adds."""


@dataclass(frozen=True)
class RangeEnd:
    """Hold a dimension of which the best trial has the first or the last value, though others can follow.

    Attributes
    ----------
    name, dimension
        The dimension.
    value, is_highest
        Value of the best trial, and whether it is the last one.
    added
        Values beyond the end by which the range can be widened, the nearest first; at least one.
    expected
        What the simulator expects of the last of these values, empty if no gain; None if not simulated.
    """

    name: str
    dimension: Dimension
    value: Value
    is_highest: bool
    added: tuple[Value, ...]
    expected: str | None = None

    @property
    def path(self) -> str:
        """Return the setting of the dimension."""
        return self.dimension.path

    @property
    def is_rate(self) -> bool:
        """Return whether the dimension is the rate of the trials."""
        return self.path == _RATE

    @property
    def wider(self) -> Value:
        """Return the value up to which the range can be widened."""
        return self.added[-1]

    @property
    def overrides(self) -> str:
        """Return the overrides of the sweep that widen it, for a shell."""
        dimension = self.dimension
        if isinstance(dimension, IntDimension | FloatDimension):
            values: list[Value] = [dimension.low, dimension.high, self.wider]
        elif self.is_highest:
            values = [*dimension.values, *self.added]
        else:
            values = [*reversed(self.added), *dimension.values]
        return overrides_for(self.name, dimension, values)


def range_ends(study: StudyRecord, best: Outcome, outcomes: Sequence[Outcome]) -> tuple[RangeEnd, ...]:
    """Return the dimensions whose range may cut the answer of a study.

    Parameters
    ----------
    study
        The study. Without its configuration on record, nothing is returned.
    best
        Its best trial. Where that violated its SLO, only a lower rate may help.
    outcomes
        All its trials: a dimension of which another value gives as much is left out.

    Returns
    -------
    tuple[RangeEnd, ...]
        One for each dimension of numbers at whose end `best` lies, where the next value beyond breaks no rule
        and no finding says that it changes nothing. The range is widened by as much as half of it.
    """
    base, sweep, point = study.base_spec, study.sweep, best.provenance.get("params", {})
    if base is None or sweep is None or point.keys() != sweep.space.keys():
        return ()
    found = []
    for name, dimension in sweep.space.items():
        is_rate = dimension.path == _RATE
        for is_highest in (False, True):
            asked = is_rate and is_highest == best.feasible if is_rate or not best.feasible else True
            is_end = asked and point[name] == _end(dimension, is_highest)
            if is_end and not _is_tied(name, best, outcomes):
                beyond = takewhile(
                    lambda value, name=name: _can_be(base, sweep, point, name, value),  # type: ignore[misc]
                    _values_beyond(dimension, is_highest),
                )
                added = tuple(beyond)
                if added:
                    found.append(RangeEnd(name, dimension, point[name], is_highest, added))
    return tuple(found)


def _is_tied(name: str, best: Outcome, outcomes: Sequence[Outcome]) -> bool:
    """Return whether a feasible trial with another value of one dimension gives as much as `best`."""
    value, least = best.provenance["params"][name], (best.output_tps_per_gpu or 0.0) * (1 - _TIE_FRAC)
    return any(
        outcome.feasible
        and (outcome.output_tps_per_gpu or 0.0) >= least
        and outcome.provenance.get("params", {}).get(name, value) != value
        for outcome in outcomes
    )


def _end(dimension: Dimension, is_highest: bool) -> Value:
    """Return the first or last value of a dimension of numbers that ascend; None where it has no such end."""
    if isinstance(dimension, IntDimension | FloatDimension):
        return None if dimension.low == dimension.high else dimension.high if is_highest else dimension.low
    numbers = [cast("float", value) for value in dimension.values if type(value) in (int, float)]
    ascends = len(numbers) == len(dimension.values) > 1 and numbers == sorted(numbers)
    if dimension.kind != "ordered" or not ascends:
        return None
    return numbers[-1] if is_highest else numbers[0]


def _values_beyond(dimension: Dimension, is_highest: bool) -> Iterator[Value]:
    """Yield values beyond an end, as far as half the range; an ordered dimension doubles or halves once."""
    sign = 1 if is_highest else -1
    if isinstance(dimension, IntDimension | FloatDimension):
        width = dimension.high - dimension.low
        step = dimension.step or width / (2 * _MOST_STEPS)
        stride = max(1, round(width / 2 / step / _MOST_STEPS))
        end = dimension.high if is_highest else dimension.low
        for k in range(1, min(_MOST_STEPS, max(1, int(width / 2 / step / stride))) + 1):
            yield _rounded(end + sign * k * stride * step, dimension)
        return
    end = cast("float", _end(dimension, is_highest))
    yield end * 2 if is_highest else (end // 2 if isinstance(end, int) else end / 2)


def _rounded(value: float, dimension: IntDimension | FloatDimension) -> float:
    return int(value) if isinstance(dimension, IntDimension) else float(f"{value:.6g}")


def _can_be(base: TrialSpec, sweep: Sweep, point: Point, name: str, value: Value) -> bool:
    """Return whether the best point may have another value of one dimension, without a rule against it.

    A value of a pool that it lacks changes nothing.
    """
    try:
        spec = bind_point(base, sweep, {**point, name: value})
    except ConfigurationError:
        return False
    best = bind_point(base, sweep, point)
    if spec.trial_id == best.trial_id or _only_holds_more_prompts(best, spec):
        return False
    path = sweep.space[name].path
    return not any(finding.severity == "error" or finding.path == path for finding in check(spec))


def _only_holds_more_prompts(best: TrialSpec, spec: TrialSpec) -> bool:
    """Return whether only the token budget of prefill steps grows, which takes the longest prompt already."""
    budget = best.prefill.token_budget
    return best.load.dataset.longest_prompt_tokens <= budget < spec.prefill.token_budget
