"""What the simulator gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tune.surrogate.discrepancy import AMPLITUDE, OUTLIER_CLIP, ROUGH, Discrepancy, Observations, covariance
from tune.surrogate.emulator import SOFT_MIN_SHARPNESS

FEATURES = np.linspace(0, 1, 9)[:, None]


def measured(ln_qps: list[float], low: float, high: float, *, lowest: bool) -> Observations:
    """One deployment a rate; its bounds lie so far below and above that."""
    at = np.array([ln_qps, ln_qps])
    count = len(ln_qps)
    return Observations(
        np.arange(count), at + low, at + high, np.full((2, count), 0.05), np.full(count, lowest)
    )


def test_the_likelihood_is_that_of_a_normal_distribution() -> None:
    which, sd = np.array([0, 4, 7]), np.full(3, 0.01)
    found = Discrepancy(FEATURES, which, sd)
    residual = np.array([[0.1, 0.1, -0.1], [0.0, 0.0, 0.0]])
    at = FEATURES[which]
    normal = multivariate_normal(np.zeros(3), covariance(at, at) + np.diag(sd**2))
    ours = -0.5 * (found.whitened(residual) ** 2).sum(1)
    assert ours[1] - ours[0] == pytest.approx(normal.logpdf(residual[1]) - normal.logpdf(residual[0]))


def test_an_error_that_was_measured_is_expected_near_by_and_not_far_away() -> None:
    found = Discrepancy(FEATURES, np.array([0]), np.array([0.01]))
    mean = found.mean(np.array([[0.1]]))[0]
    assert mean[0] == pytest.approx(0.1, rel=0.05)
    assert (np.diff(mean) < 0).all()
    assert (np.diff(found.sd) > 0).all()
    assert found.sd.max() < np.hypot(AMPLITUDE, ROUGH)


def test_one_that_can_do_next_to_nothing_is_known_and_says_little_of_others() -> None:
    found = Discrepancy(FEATURES, np.array([0, 4]), np.array([0.01, 0.01]))
    little, nothing = found.mean(np.array([[-OUTLIER_CLIP, 0.05], [-5.0, 0.05]]))
    assert nothing[0] == pytest.approx(-5.0, abs=0.1)
    assert (nothing[1:] == little[1:]).all()


def test_a_boundary_is_that_of_the_pool_that_binds_and_the_other_can_do_no_less() -> None:
    """Racks that say 2.3 and 2.5, 2.5 and 2.3, 1.5 and 1.7, where 2.0 was measured: (2, 3, 1)."""
    said = np.array([[2.3, 2.5, 1.5], [2.5, 2.3, 1.7]])[..., None]
    seen = measured([2.0], 0.0, 0.0, lowest=True)
    residual = seen.residual(said)[..., 0]
    assert residual[0] == pytest.approx([-0.3, 0, 0.5], abs=0.01)
    assert residual[1] == pytest.approx([0, -0.3, 0.3], abs=0.01)


def test_a_rack_whose_pools_are_close_is_right_where_the_boundary_lies_as_far_below_as_it_should() -> None:
    seen = measured([2.0 - np.log(2) / SOFT_MIN_SHARPNESS], 0.0, 0.0, lowest=True)
    assert seen.residual(np.full((2, 1, 1), 2.0)).ravel() == pytest.approx([0, 0])


def test_a_boundary_tells_of_the_pool_that_binds_on_more_racks_whatever_the_signs() -> None:
    seen = measured([2.0], 0.0, 0.0, lowest=True)
    prefill = np.array([1.8, 1.9, 2.1, 2.2, 2.6])
    decode = np.array([2.5, 2.5, 2.5, 2.5, 2.2])
    residual = seen.residual(np.stack([prefill, decode])[..., None])
    assert np.median(np.where(np.abs(residual) < 0.01, 0, residual), axis=1).ravel().tolist() == [0, 0]
    assert seen.tells(residual).ravel().tolist() == [True, False]


def test_bounds_of_both_pools_are_held_against_both() -> None:
    seen = measured([2.0], 0.0, 0.0, lowest=False)
    residual = seen.residual(np.array([[2.3], [2.5]])[..., None])
    assert residual[..., 0, 0] == pytest.approx([-0.3, -0.5])
    assert seen.tells(residual).all()


def test_what_is_only_known_to_be_below_says_nothing_to_a_rack_that_agrees() -> None:
    seen = measured([2.0], -np.inf, 0.0, lowest=True)
    said = np.array([[1.5, 2.0, 2.3], [2.6, 2.6, 2.6]])[..., None]
    residual = seen.residual(said)
    assert residual[0].ravel() == pytest.approx([0, 0, -0.3], abs=0.01)
    assert (residual[1] == 0).all()
    assert not seen.tells(residual).any()
    assert seen.tells(residual[:, 2:]).ravel().tolist() == [True, False]


def test_a_rate_that_held_is_a_bound_for_both_pools() -> None:
    seen = measured([2.0], 0.0, np.inf, lowest=True)
    residual = seen.residual(np.array([[1.8], [2.4]])[..., None])
    assert residual.ravel() == pytest.approx([0.2, 0], abs=0.01)
