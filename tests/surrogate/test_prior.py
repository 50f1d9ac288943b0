"""Test the prior: how far a rack may be from its calibration, and what follows from that."""

from __future__ import annotations

import numpy as np
import pytest

from tune.surrogate.prior import (
    CALIBRATED,
    CALIBRATION_ERROR,
    CALIBRATION_ERROR_PROBABILITY,
    CALIBRATION_ERRORS,
    Hypothesis,
    ParameterPrior,
    ParameterSamples,
)

ROUTER = Hypothesis("router", (0.0, 2.0), (0.6, 0.4))
PRIOR = ParameterPrior(
    [4], [4], [ROUTER, Hypothesis(CALIBRATION_ERROR, CALIBRATION_ERRORS, CALIBRATION_ERROR_PROBABILITY)]
)
SAMPLES = PRIOR.draw(20_000, np.random.default_rng(0))
ERROR = PRIOR.calibration_error(SAMPLES)


def test_on_a_calibrated_rack_everything_is_as_configured() -> None:
    assert (SAMPLES.choice[ERROR <= CALIBRATED, 0] == 0).all()
    assert (SAMPLES.choice[ERROR > CALIBRATED, 0] == 1).any()


@pytest.mark.parametrize("error", CALIBRATION_ERRORS)
def test_factors_are_as_near_to_1_as_the_rack_is_to_its_calibration(error: float) -> None:
    factors = PRIOR.factors(SAMPLES)["prefill_scale"][error == ERROR]
    assert np.log(factors).std() == pytest.approx(0.3 * error, rel=0.05)


def test_the_stated_probabilities_are_those_of_the_samples() -> None:
    for column, hypothesis in enumerate(PRIOR.hypotheses):
        shares = np.bincount(SAMPLES.choice[:, column], minlength=len(hypothesis.values)) / len(SAMPLES)
        assert PRIOR.hypothesis_probability(hypothesis.name) == pytest.approx(shares, abs=0.015)


def test_the_density_of_the_hypotheses_sums_to_one() -> None:
    choice = np.array([[router, error] for router in range(2) for error in range(len(CALIBRATION_ERRORS))])
    samples = ParameterSamples(np.zeros((len(choice), len(PRIOR.names))), choice)
    assert np.exp(PRIOR.log_density(samples)).sum() == pytest.approx(1)


def test_without_the_hypothesis_the_prior_is_that_of_another_rack() -> None:
    prior = ParameterPrior([4], [4], [ROUTER])
    samples = prior.draw(100, np.random.default_rng(0))
    assert (prior.calibration_error(samples) == 1).all()
    assert prior.hypothesis_probability("router") == ROUTER.probability
