"""Test how errors of predictions are measured, and how much wider or narrower intervals become by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hidden_parameters import measure_all

from tune.surrogate.credible_interval import expected_capacity_qps
from tune.surrogate.discrepancy import FORECAST_SD
from tune.surrogate.error_scale import (
    LARGEST_ERROR,
    PRIOR_ERRORS,
    SCALE_LIMITS,
    scale_of,
    standardised_error,
)
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.prediction import Prediction
from tune.surrogate.prior import ParameterSamples

SAMPLES, MEAN, SD, NOISE_SD = 16, np.log(10.0), 0.03, 0.04


def predicted(is_predicted: bool = True) -> Prediction:
    """Return a normal prediction of one configuration: 10 queries/s, 5 % measured standard deviation."""
    log_qps = np.full((SAMPLES, 1), MEAN)
    return Prediction(
        ParameterSamples(np.zeros((SAMPLES, 0)), np.zeros((SAMPLES, 0), int)),
        log_qps,
        np.stack([log_qps, log_qps]),
        log_qps,
        np.full((SAMPLES, 1), SD),
        np.array([is_predicted]),
        np.full(SAMPLES, NOISE_SD),
    )


@given(st.floats(-4, 4), st.sampled_from(["measured", "forecast"]))
def test_an_error_is_in_standard_deviations_of_what_was_predicted(
    sds: float, status: Literal["measured", "forecast"]
) -> None:
    sd = np.sqrt(SD**2 + NOISE_SD**2 + (FORECAST_SD**2 if status == "forecast" else 0))
    observation = Observation(0, status, float(np.exp(MEAN + sds * sd)))
    assert standardised_error(predicted(), observation) == pytest.approx(sds, abs=1e-6)


def test_without_a_prediction_there_is_no_error() -> None:
    assert standardised_error(predicted(is_predicted=False), Observation(0, "measured", 10.0)) is None
    assert standardised_error(predicted(), Observation(1, "measured", 10.0)) is None


@given(st.lists(st.floats(-20, 20), max_size=40))
def test_few_errors_move_the_scale_little_and_an_outlier_counts_as_a_large_error(sds: list[float]) -> None:
    scale = scale_of(sds)
    assert SCALE_LIMITS[0] <= scale <= SCALE_LIMITS[1]
    most = np.sqrt((PRIOR_ERRORS + len(sds) * LARGEST_ERROR**2) / (PRIOR_ERRORS + len(sds)))
    least = np.sqrt(PRIOR_ERRORS / (PRIOR_ERRORS + len(sds)))
    assert max(least, SCALE_LIMITS[0]) * (1 - 1e-12) <= scale <= most * (1 + 1e-12)


@pytest.mark.parametrize("true_scale", [0.8, 1.0, 1.1])
def test_many_errors_show_the_scale(true_scale: float) -> None:
    sds = np.random.default_rng(0).normal(0, true_scale, 1000).tolist()
    assert scale_of(sds) == pytest.approx(true_scale, rel=0.06)


def test_an_interval_is_as_much_wider_as_errors_were_larger() -> None:
    one, wider = (expected_capacity_qps(predicted(), 0, scale) for scale in (1.0, 1.5))
    assert wider.median == pytest.approx(one.median, rel=1e-4)
    assert np.log(wider.high / wider.low) == pytest.approx(1.5 * np.log(one.high / one.low), rel=1e-3)


def test_each_measurement_is_compared_with_the_prediction_without_it(search: SurrogateOptimizer) -> None:
    """The scale depends on the observations alone, not on what was predicted before or what runs."""
    observations = [*measure_all(search)[:2], Observation(5, "pending"), Observation(6, "crashed")]
    errors = [
        standardised_error(search.predict(observations[:count]), observations[count]) for count in (0, 1)
    ]
    expected = scale_of([error for error in errors if error is not None])
    assert expected != 1.0
    assert search.error_scale(observations) == expected
    assert search.error_scale(observations[1:]) != expected
    new = replace(search, simulated=search.emulator)
    assert new.error_scale(observations) == expected
    assert new.error_scale([]) == 1.0
