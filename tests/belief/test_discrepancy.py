"""What the simulator gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tune.belief.discrepancy import AMPLITUDE, ROUGH, Discrepancy, Measured, kernel

FEATURES = np.linspace(0, 1, 9)[:, None]


def measured(which: list[int], ln_qps: list[float], sd: float = 0.01) -> Measured:
    values = np.array(ln_qps)
    return Measured(np.array(which), values, values, np.full(len(which), sd))


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    seen = measured([0, 4, 7], [0.1, 0.2, 0.0])
    found = Discrepancy(FEATURES, seen)
    residual = seen.residual(np.array([[0.0, 0.1, 0.1], [0.1, 0.2, 0.0]]))
    at = FEATURES[seen.which]
    normal = multivariate_normal(np.zeros(3), kernel(at, at) + np.diag(seen.sd**2))
    ours = found.ln_likelihood(residual)
    assert ours[1] - ours[0] == pytest.approx(normal.logpdf(residual[1]) - normal.logpdf(residual[0]))


def test_an_error_that_was_measured_is_expected_near_by_and_not_far_away() -> None:
    seen = measured([0], [0.1])
    found = Discrepancy(FEATURES, seen)
    mean = found.mean(seen.residual(np.zeros((1, 1))))[0]
    assert mean[0] == pytest.approx(0.1, rel=0.05)
    assert (np.diff(mean) < 0).all()
    assert (np.diff(found.sd) > 0).all()
    assert found.sd.max() < np.hypot(AMPLITUDE, ROUGH)


def test_what_is_only_known_to_be_below_says_nothing_to_a_rack_that_agrees() -> None:
    seen = Measured(np.array([3]), np.array([-np.inf]), np.array([2.0]), np.array([0.05]))
    assert seen.residual(np.array([[1.5], [2.0], [2.3]])).ravel() == pytest.approx([0, 0, -0.3])
