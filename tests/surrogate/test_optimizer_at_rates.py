"""Test the optimizer where each deployment is measured at one rate."""

from __future__ import annotations

from copy import copy

import numpy as np
import pytest
from support.hidden_parameters import true_capacities_qps

from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer


@pytest.fixture(scope="module")
def at_rates(search: SurrogateOptimizer) -> SurrogateOptimizer:
    """Return an optimizer that measures each deployment at one rate."""
    changed = copy(search)
    changed.rates_qps = np.arange(4.0, 26.0, 0.25)
    return changed


def observe_rates(search: SurrogateOptimizer, runs: int) -> list[Observation]:
    """Follow the suggested configurations and rates for a number of runs."""
    truth, observations = true_capacities_qps(search), list[Observation]()
    while len(observations) < runs:
        suggestion = search.suggest(observations)
        assert suggestion
        assert suggestion.qps in search.rates_qps  # type: ignore[operator]
        slo_met = truth[suggestion.index] >= suggestion.qps  # type: ignore[operator]
        status = "above" if slo_met else "below"
        observations.append(Observation(suggestion.index, status, suggestion.qps or 0.0))
    return observations


@pytest.mark.slow
def test_one_rate_a_run_reaches_nearly_the_best_capacity(at_rates: SurrogateOptimizer) -> None:
    observations = observe_rates(at_rates, 14)
    verified = 0.0
    for observation in observations:
        assert observation.qps > verified
        verified = max(verified, observation.qps) if observation.status == "above" else verified
    assert verified >= 0.93 * max(true_capacities_qps(at_rates))


@pytest.mark.slow
def test_no_rate_is_suggested_from_a_missed_one_on(at_rates: SurrogateOptimizer) -> None:
    observations = [Observation(index, "below", 4.25) for index in range(len(at_rates.specs))]
    suggestion = at_rates.suggest(observations)
    assert suggestion
    assert suggestion.qps == 4.0
    assert at_rates.suggest([*observations, Observation(0, "above", 4.0)]) is None
    assert at_rates.suggest([Observation(0, "above", 25.75)]) is None, "it is the highest rate"


def test_a_rate_far_below_expectation_barely_informs(at_rates: SurrogateOptimizer) -> None:
    observations = [Observation(0, "measured", true_capacities_qps(at_rates)[0])]
    prediction = at_rates.predict(observations)
    low_qps = 0.2 * float(prediction.expected_capacity_qps[3])
    updated = at_rates.predict([*observations, Observation(3, "above", low_qps)])
    assert updated.sd[:, 3].mean() == pytest.approx(prediction.sd[:, 3].mean(), rel=0.1)


def test_an_invalid_run_changes_no_prediction_and_is_not_repeated(at_rates: SurrogateOptimizer) -> None:
    observations = observe_rates(at_rates, 3)
    suggestion = at_rates.suggest(observations)
    assert suggestion
    with_invalid = [*observations, Observation(suggestion.index, "invalid", suggestion.qps or 0.0)]
    expected_qps, unchanged_qps = (
        at_rates.predict(known).expected_capacity_qps for known in (observations, with_invalid)
    )
    assert (unchanged_qps == expected_qps).all()
    following = at_rates.suggest(with_invalid)
    assert following
    assert (following.index, following.qps) != (suggestion.index, suggestion.qps)


def test_rates_for_parallel_trials_differ(at_rates: SurrogateOptimizer) -> None:
    observations = observe_rates(at_rates, 3)
    for _ in range(3):
        suggestion = at_rates.suggest(observations)
        assert suggestion
        known = [(observation.index, observation.qps) for observation in observations]
        assert (suggestion.index, suggestion.qps) not in known
        observations.append(Observation(suggestion.index, "pending", suggestion.qps or 0.0))
