"""Check a sweep whole: bind the values of every dimension, and hold its points against all rules."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.bind import Point, bind_point
from tune.spec.findings import Finding, only_errors
from tune.spec.space import Sweep, Value
from tune.spec.sweep_overrides import listed_values, overrides_for
from tune.spec.trial import TrialSpec
from tune.study.search_space import sample_values

MAX_POINTS = 1500
"""Number of points that are checked: all points of a smaller space, a sample of a larger."""

MAX_FURTHER_POINTS = 800
"""Number of further points that are checked for values whose sampled points all broke a rule."""

MAX_VALUES = 100
"""Number of values of a dimension that are checked, from end to end where it has more."""

_DEPENDS_FRAC = 0.1
"""A rule depends on a dimension whose values explain this share of the variance of "breaks it" or not."""

_LISTED = 8
"""Number of values that a message lists."""


@dataclass(frozen=True)
class _CheckedPoint:
    """Hold a point of the sweep and the rules that it breaks."""

    point: Point
    broken: tuple[Finding, ...]


@dataclass(frozen=True)
class _Problem:
    """Hold a sweep, the configuration that it varies, and the values of each dimension that are tried."""

    base: TrialSpec
    sweep: Sweep
    axes: Mapping[str, Sequence[Value]]
    seed: int

    @property
    def exhaustive(self) -> bool:
        """Return whether every combination of the values is tried."""
        return math.prod(len(values) for values in self.axes.values()) <= MAX_POINTS

    def check(self, point: Point) -> _CheckedPoint:
        """Bind one point and check it."""
        return _CheckedPoint(point, only_errors(check(bind_point(self.base, self.sweep, point))))


def check_sweep(base: TrialSpec, sweep: Sweep, seed: int = 0) -> tuple[Finding, ...]:
    """Return what is wrong with the points of a sweep.

    Parameters
    ----------
    base
        The configuration that the sweep varies.
    sweep
        Its dimensions are checked. In a space of more than MAX_POINTS points a sample is checked.
    seed
        Seed of the sample.

    Returns
    -------
    tuple[Finding, ...]
        Errors where no point can run; otherwise a warning with the share of points that break a rule, and one
        for each dimension with a value that breaks a rule in every combination.

    Raises
    ------
    ConfigurationError
        Where a dimension's path is no setting or a value does not fit it; it names all of them.
    """
    axes = {name: sample_values(dimension, MAX_VALUES) for name, dimension in sweep.space.items()}
    problem = _Problem(base, sweep, axes, seed)
    _require_values_fit(problem)
    checked = [problem.check(point) for point in _points(problem)]
    if not any(each.broken for each in checked):
        return ()
    dead = _dead_values(problem, checked)
    if all(len(dead[name]) == len(values) for name, values in axes.items()):
        return _impossible(problem, checked)
    return (
        _share(problem, checked),
        *(_dead_finding(problem, name, values, checked) for name, values in dead.items() if values),
    )


def _require_values_fit(problem: _Problem) -> None:
    """Raise ConfigurationError naming every dimension without a setting and every value of a wrong type."""
    errors: dict[str, None] = {}
    fitting: dict[str, Value] = {}
    for name, values in problem.axes.items():
        space = {name: problem.sweep.space[name]}
        alone = problem.sweep.model_copy(update={"space": space, "fill_decode": False})
        for value in values:
            try:
                bind_point(problem.base, alone, {name: value})
                fitting.setdefault(name, value)
            except ConfigurationError as error:
                errors[str(error)] = None
    if errors:
        raise ConfigurationError("\n".join([*errors, "Nothing was run."]))


def _points(problem: _Problem) -> Iterator[Point]:
    """Yield the whole grid, or MAX_POINTS points in which each value of a dimension occurs equally often."""
    axes = problem.axes
    if problem.exhaustive:
        yield from (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
        return
    draws = np.random.default_rng([problem.seed, 5])
    columns = {
        name: [values[int(index)] for index in draws.permutation(np.arange(MAX_POINTS) % len(values))]
        for name, values in axes.items()
    }
    for row in range(MAX_POINTS):
        yield {name: column[row] for name, column in columns.items()}


def _dead_values(problem: _Problem, checked: Sequence[_CheckedPoint]) -> dict[str, list[Value]]:
    """Return the values of each dimension that break a rule in every combination that was tried."""
    axes = problem.axes
    alive = {pair for each in checked if not each.broken for pair in each.point.items()}
    doubtful = [
        pair for name, values in axes.items() for value in values if (pair := (name, value)) not in alive
    ]
    draws = np.random.default_rng([problem.seed, 7])
    further = 0 if problem.exhaustive else MAX_FURTHER_POINTS
    for name, value in itertools.islice(itertools.cycle(doubtful), further):
        if (name, value) not in alive:
            point = {other: values[int(draws.integers(len(values)))] for other, values in axes.items()}
            tried = problem.check({**point, name: value})
            alive |= set() if tried.broken else set(tried.point.items())
    return {name: [value for value in values if (name, value) not in alive] for name, values in axes.items()}


def _impossible(problem: _Problem, checked: Sequence[_CheckedPoint]) -> tuple[Finding, ...]:
    """Return an error for each rule that every point breaks; for the most frequent where there is none."""
    shares = _shares(checked)
    always = [path for path, share in shares.items() if share == 1] or [max(shares, key=lambda p: shares[p])]
    dimensions = {dimension.path: name for name, dimension in problem.sweep.space.items()}
    rules = [_example(checked, path) for path in always]
    return tuple(
        Finding(
            "error",
            f"sweep.space.{dimensions[rule.path]}" if rule.path in dimensions else rule.path,
            rule.found,
            rule.expected,
            f"no point of the sweep can run: {rule.why}",
            rule.source,
        )
        for rule in rules
    )


def _share(problem: _Problem, checked: Sequence[_CheckedPoint]) -> Finding:
    """Return the share of points that break a rule, with each rule and the values that it concerns."""
    rules = []
    for path, share in sorted(_shares(checked).items(), key=lambda item: -item[1]):
        rule, concerned = _example(checked, path), _concerned(problem.sweep, checked, path)
        rules.append(f"{path} in {share:.1%}{concerned}, such as {rule.found}; expected {rule.expected}")
    broken = sum(bool(each.broken) for each in checked) / len(checked)
    points = f"{'all' if problem.exhaustive else 'a sample of'} {len(checked):,} points"
    return Finding(
        "warning",
        "sweep.space",
        f"{broken:.1%} of {points} break a rule",
        "few: search=surrogate leaves them out, any other search counts each as a trial, which costs nothing",
        ". ".join(rules),
        "the rules of every trial",
    )


def _dead_finding(
    problem: _Problem, name: str, dead: Sequence[Value], checked: Sequence[_CheckedPoint]
) -> Finding:
    """Return the warning for the values of one dimension that never run, with what leaves them out."""
    points = [each for each in checked if each.point[name] in dead]
    shares = _shares(points)
    rule = _example(points, max(shares, key=lambda path: shares[path]))
    kept = [value for value in problem.axes[name] if value not in dead]
    dimension = problem.sweep.space[name]
    listed = f"{name}: {{kind: ordered, path: {dimension.path}, values: [{_listed(kept)}]}}"
    values = list(problem.axes[name])
    whole = kept == values[values.index(kept[0]) : values.index(kept[-1]) + 1]
    is_range = dimension.kind in ("int", "float")
    return Finding(
        "warning",
        f"sweep.space.{name}",
        f"{_listed(dead)}: {len(dead)} of {len(problem.axes[name])} values break a rule in every combination",
        overrides_for(name, dimension, kept) if whole or not is_range else listed,
        f"{_listed(dead)} can never run; {rule.path}: found {rule.found}, expected {rule.expected}",
        rule.source,
    )


def _shares(checked: Sequence[_CheckedPoint]) -> dict[str, float]:
    """Return the share of points that break each rule, by the path of its setting."""
    paths = [path for each in checked for path in {finding.path for finding in each.broken}]
    return {path: paths.count(path) / len(checked) for path in dict.fromkeys(paths)}


def _example(checked: Sequence[_CheckedPoint], path: str) -> Finding:
    """Return the finding on `path` of the first point that has one."""
    return next(finding for each in checked for finding in each.broken if finding.path == path)


def _concerned(sweep: Sweep, checked: Sequence[_CheckedPoint], path: str) -> str:
    """Return the values that always break the rule on `path`, or the dimensions that it depends on."""
    always, depends = [], []
    for name in sweep.space:
        shares = _shares_by_value(name, checked, path)
        values = [value for value, share in shares.items() if share == 1]
        if values and len(values) < len(shares):
            always.append(f"{name} {_listed(values)}")
        elif _explained_frac(list(shares.values()), len(checked)) >= _DEPENDS_FRAC:
            depends.append(name)
    parts = [f"always with {' and '.join(always)}"] if always else []
    parts += [f"it depends on {' and '.join(depends)}"] if depends else []
    return f" ({'; '.join(parts)})" if parts else ""


def _explained_frac(shares: Sequence[float], points: int) -> float:
    """Return the share of the variance of `points` yes-or-no results that groups explain, less chance."""
    mean = float(np.mean(shares))
    return float(np.var(shares)) / (mean * (1 - mean)) - (len(shares) - 1) / points if 0 < mean < 1 else 0.0


def _shares_by_value(name: str, checked: Sequence[_CheckedPoint], path: str) -> dict[Any, float]:
    """Return the share of points that break the rule on `path`, for each value of one dimension."""
    hits: dict[Any, list[bool]] = {}
    for each in checked:
        breaks = any(finding.path == path for finding in each.broken)
        hits.setdefault(each.point[name], []).append(breaks)
    return {value: sum(breaks) / len(breaks) for value, breaks in hits.items()}


def _listed(values: Iterable[Value]) -> str:
    """Return distinct values in order, cut to _LISTED; three or more whole numbers in a row as a range."""
    distinct = list(dict.fromkeys(values))
    numbers = sorted(value for value in distinct if type(value) is int)
    if len(numbers) == len(distinct) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    words = [listed_values([value])[1:-1] for value in distinct[:_LISTED]]
    return ", ".join(words) + (" ..." if len(distinct) > _LISTED else "")
