"""Test the Laplace mixture where the posterior is known: predictions that are linear in the parameters."""

from __future__ import annotations

import numpy as np
import pytest

from tune.core.arrays import FloatArray
from tune.surrogate.laplace import LaplaceMixture, independent_parameter_groups
from tune.surrogate.prior import Hypothesis, ParameterPrior, ParameterSamples

PRIOR = ParameterPrior([1], [1], [Hypothesis("router", (0.0, 1.0), (0.7, 0.3))])
PARAMETERS = len(PRIOR.names)
SLOPES = np.random.default_rng(1).normal(size=(PARAMETERS, 4)) * 8
OBSERVED = np.array([[3.0, -5.0, 8.0, 1.0], [4.0, -4.0, 6.0, 2.0]])
"""For each value of the hypothesis, the observations that leave no residual at the prior mean."""


class LinearModel:
    """Predict observations of one pool that are linear in the parameters."""

    sensitivity_mask = np.ones((PARAMETERS, 2, 4), bool)

    def residual(self, samples: ParameterSamples) -> FloatArray:
        difference = samples.normal @ SLOPES - OBSERVED[samples.choice[:, 0]]
        return np.stack([difference, np.zeros_like(difference)])

    def whitened(self, samples: ParameterSamples, residual: FloatArray) -> FloatArray:
        return np.concatenate([*residual], 1)

    def log_likelihood(self, samples: ParameterSamples, residual: FloatArray) -> FloatArray:
        log_likelihood: FloatArray = -0.5 * (self.whitened(samples, residual) ** 2).sum(1)
        return log_likelihood


def residual_of(samples: ParameterSamples) -> FloatArray:
    """Return the residual of the observed pool, shape (samples, 4)."""
    return LinearModel().residual(samples)[0]


def draw_weighted(count: int) -> tuple[ParameterSamples, FloatArray]:
    """Draw from the mixture, with the importance weights that make the draws posterior samples."""
    generator = np.random.default_rng(2)
    mixture = LaplaceMixture(PRIOR, PRIOR.draw(16, generator), LinearModel())
    samples = mixture.draw(count, generator)
    log_weight = mixture.log_importance_weight(samples) - 0.5 * (residual_of(samples) ** 2).sum(1)
    weight = np.exp(log_weight - log_weight.max())
    return samples, weight / weight.sum()


@pytest.mark.slow
def test_weighted_draws_have_the_posterior_mean_and_covariance() -> None:
    samples, weight = draw_weighted(40_000)
    first = samples.choice[:, 0] == 0
    normal, first_weight = samples.normal[first], weight[first] / weight[first].sum()
    covariance = np.linalg.inv(SLOPES @ SLOPES.T + np.eye(PARAMETERS))
    mean = first_weight @ normal
    assert mean == pytest.approx(covariance @ SLOPES @ OBSERVED[0], abs=0.02)
    spread = ((normal - mean) * first_weight[:, None]).T @ (normal - mean)
    assert spread == pytest.approx(covariance, abs=0.04)


def test_hypotheses_have_their_posterior_probability() -> None:
    samples, weight = draw_weighted(40_000)
    covariance = SLOPES.T @ SLOPES + np.eye(4)
    evidence = [0.7, 0.3] * np.exp(
        [-0.5 * observed @ np.linalg.solve(covariance, observed) for observed in OBSERVED]
    )
    assert weight[samples.choice[:, 0] == 0].sum() == pytest.approx((evidence / evidence.sum())[0], abs=0.02)


def test_effective_sample_size_exceeds_that_of_prior_samples() -> None:
    _, weight = draw_weighted(4000)
    prior_samples = PRIOR.draw(4000, np.random.default_rng(3))
    likelihood = np.exp(-0.5 * (residual_of(prior_samples) ** 2).sum(1))
    assert 1 / (weight**2).sum() > 1000
    assert likelihood.sum() ** 2 / (likelihood**2).sum() < 100


def test_parameters_without_common_observations_are_grouped() -> None:
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], bool)[:, None]
    assert [group.tolist() for group in independent_parameter_groups(mask)] == [[0, 1, 3], [2]]
