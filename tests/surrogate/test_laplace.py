"""Racks that explain what was measured best, where that is known: errors that are linear in the figures."""

from __future__ import annotations

import numpy as np
import pytest

from tune.core.arrays import FloatArray
from tune.surrogate.laplace import LaplaceMixture, independent_parameter_groups
from tune.surrogate.prior import Hypothesis, ParameterPrior, ParameterSamples

SPACE = ParameterPrior([1], [1], [Hypothesis("router", (0.0, 1.0), (0.7, 0.3))])
FIGURES = len(SPACE.names)
SLOPES = np.random.default_rng(1).normal(size=(FIGURES, 4)) * 8
TOLD = np.array([[3.0, -5.0, 8.0, 1.0], [4.0, -4.0, 6.0, 2.0]])
"""Of each value of the hypothesis: what would be off by nothing."""


class Linear:
    """Each measurement of one bound, none of the other."""

    touched = np.ones((FIGURES, 2, 4), bool)

    def residual(self, racks: ParameterSamples) -> FloatArray:
        off = racks.normal @ SLOPES - TOLD[racks.choice[:, 0]]
        return np.stack([off, np.zeros_like(off)])

    def whitened(self, residual: FloatArray) -> FloatArray:
        return np.concatenate([*residual], 1)


def off(racks: ParameterSamples) -> FloatArray:
    return Linear().residual(racks)[0]


def weighed(count: int) -> tuple[ParameterSamples, FloatArray]:
    """Draws around the modes, and the weights that make them draws of what is probable."""
    draws = np.random.default_rng(2)
    modes = LaplaceMixture(SPACE, SPACE.draw(16, draws), Linear())
    racks = modes.draw(count, draws)
    ln_weight = modes.log_importance_weight(racks) - 0.5 * (off(racks) ** 2).sum(1)
    weight = np.exp(ln_weight - ln_weight.max())
    return racks, weight / weight.sum()


def test_weighed_draws_have_the_mean_and_spread_that_are_probable() -> None:
    racks, weight = weighed(40_000)
    first = racks.choice[:, 0] == 0
    normal, of_first = racks.normal[first], weight[first] / weight[first].sum()
    covariance = np.linalg.inv(SLOPES @ SLOPES.T + np.eye(FIGURES))
    mean = of_first @ normal
    assert mean == pytest.approx(covariance @ SLOPES @ TOLD[0], abs=0.02)
    spread = ((normal - mean) * of_first[:, None]).T @ (normal - mean)
    assert spread == pytest.approx(covariance, abs=0.04)


def test_a_hypothesis_is_as_probable_as_what_it_explains() -> None:
    racks, weight = weighed(40_000)
    covariance = SLOPES.T @ SLOPES + np.eye(4)
    evidence = [0.7, 0.3] * np.exp([-0.5 * told @ np.linalg.solve(covariance, told) for told in TOLD])
    assert weight[racks.choice[:, 0] == 0].sum() == pytest.approx((evidence / evidence.sum())[0], abs=0.02)


def test_most_draws_count_where_importance_sampling_from_before_is_lost() -> None:
    _, weight = weighed(4000)
    before = SPACE.draw(4000, np.random.default_rng(3))
    likelihood = np.exp(-0.5 * (off(before) ** 2).sum(1))
    assert 1 / (weight**2).sum() > 1000
    assert likelihood.sum() ** 2 / (likelihood**2).sum() < 100


def test_figures_that_change_nothing_in_common_are_tried_together() -> None:
    touched = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], bool)[:, None]
    assert [group.tolist() for group in independent_parameter_groups(touched)] == [[0, 1, 3], [2]]
