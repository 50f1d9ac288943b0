"""Test the expected improvement of predictions that are made up."""

from __future__ import annotations

import numpy as np
import pytest

from tune.core.arrays import FloatArray
from tune.surrogate.improvement import improvement
from tune.surrogate.observation import Observation
from tune.surrogate.prediction import Prediction
from tune.surrogate.prior import ParameterSamples

SAMPLES = 400
SHARED = np.random.default_rng(0).normal(0, 0.2, (SAMPLES, 1))
"""Error of the log capacity that all configurations share, by sample."""

FEATURES = np.array([[0.0], [5.0], [10.0]])
"""So far from each other that none tells whether another crashes."""

BEST = Observation(0, "measured", 10.0)
RUNS_FRAC = 0.92
"""Probability that a configuration runs, before any crash."""


def prediction_of(log_mean: FloatArray, sd: float) -> Prediction:
    """Return a prediction with these log capacities, shape (samples, 3)."""
    return Prediction(
        ParameterSamples(np.zeros((SAMPLES, 0)), np.zeros((SAMPLES, 0), int)),
        log_mean,
        np.stack([log_mean, log_mean]),
        log_mean,
        np.full(log_mean.shape, sd),
        np.ones(3, bool),
        np.full(SAMPLES, 0.01),
    )


def test_an_error_that_all_configurations_share_promises_no_gain() -> None:
    log_qps = np.log([10.0, 9.9, 9.0])
    shared = improvement(prediction_of(log_qps + SHARED, 0.001), [BEST], FEATURES, None)
    own = improvement(prediction_of(log_qps + SHARED * [0, 1, 1], 0.001), [BEST], FEATURES, None)
    assert shared.max() < 1e-4
    assert own[1] > 0.05


def test_an_error_of_its_own_promises_a_gain() -> None:
    """The mean excess of a normal over its own mean is 0.399 standard deviations."""
    gain = improvement(prediction_of(np.log([10.0, 10.0, 5.0]) + SHARED, 0.01), [BEST], FEATURES, None)
    assert gain[0] == 0
    assert gain[1] == pytest.approx(0.399 * 0.01 * RUNS_FRAC, rel=0.03)
    assert gain[2] < 1e-6


def test_what_runs_is_a_rival_too() -> None:
    prediction = prediction_of(np.log([10.0, 11.0, 11.0]) + SHARED, 0.01)
    alone = improvement(prediction, [BEST], FEATURES, None)
    beside = improvement(prediction, [BEST, Observation(1, "pending")], FEATURES, None)
    assert alone[2] == pytest.approx(0.1 * RUNS_FRAC, rel=0.05)
    assert beside[2] < 0.1 * alone[2]
