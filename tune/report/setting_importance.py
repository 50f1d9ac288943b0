"""Estimate how much each setting decides whether a configuration ranks among the best.

PED-ANOVA compares the distribution of a setting among the best trials with that among all trials. It needs
only the ranking, so trials that violate the SLO count as what they are: worse than those that hold it.
Source: Watanabe et al., PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces,
IJCAI 2023; implemented by Optuna.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.spec.space import Dimension, FloatDimension, IntDimension, Value

BEST_SHARE, BEST_TRIALS = 0.1, 5
"""Share of the ranked trials that counts as the best, and their smallest number. Source: Optuna's advice."""

MIN_TRIALS = 3 * BEST_TRIALS
"""Fewest ranked trials from which importance is estimated; chosen here."""


def best_count(ranked: int) -> int:
    """Return how many of `ranked` trials count as the best."""
    return max(BEST_TRIALS, round(BEST_SHARE * ranked))


def setting_importance(
    study: StudyRecord, outcomes: Sequence[Outcome], ranks: Mapping[str, int]
) -> dict[str, float]:
    """Return the importance of every dimension that varies, the largest first; they sum to 1.

    Empty with fewer than two such dimensions or MIN_TRIALS ranked trials. `outcomes` holds each trial once;
    `ranks` holds the rank of every measured trial by its id.
    """
    ranked = [o for o in outcomes if o.trial_id in ranks and set(study.space) <= set(formatting.params(o))]
    points = [formatting.params(o) for o in ranked]
    varied = [name for name in study.space if len({json.dumps(point[name]) for point in points}) > 1]
    if len(ranked) < MIN_TRIALS or len(varied) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(
            target_quantile=best_count(len(ranked)) / len(ranked)
        )
    space = {name: _distribution(study.space[name], [point[name] for point in points]) for name in varied}
    trials = [
        optuna.trial.create_trial(
            params={name: _encoded(study.space[name], point[name]) for name in varied},
            distributions=space,
            value=float(ranks[outcome.trial_id]),
        )
        for outcome, point in zip(ranked, points, strict=True)
    ]
    return {name: float(share) for name, share in _evaluate(trials, evaluator).items()}


def _evaluate(trials: Sequence[Any], evaluator: Any) -> dict[str, float]:
    """Return the importance of every parameter; Optuna logs nothing meanwhile."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        records = optuna.create_study(direction="minimize")
        records.add_trials(trials)
        return optuna.importance.get_param_importances(records, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _distribution(dimension: Dimension, values: Sequence[Value]) -> Any:
    """Return Optuna's distribution of a dimension, widened to `values`, of which an older space had more."""
    if isinstance(dimension, IntDimension | FloatDimension):
        numbers = [
            *(value for value in values if isinstance(value, int | float)),
            dimension.low,
            dimension.high,
        ]
        if isinstance(dimension, IntDimension):
            return IntDistribution(int(min(numbers)), int(max(numbers)))
        return FloatDistribution(min(numbers), max(numbers), log=dimension.log)
    return CategoricalDistribution(sorted({_encoded(dimension, value) for value in values}))


def _encoded(dimension: Dimension, value: Value) -> Any:
    """Return a value as Optuna holds it: numbers of a range as they are, every other value as JSON."""
    return value if isinstance(dimension, IntDimension | FloatDimension) else json.dumps(value)
