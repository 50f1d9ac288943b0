"""Test the optimizer on a small space, against hardware whose parameters it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.hidden_parameters import SLOW, measure_all, observe, true_capacities_qps

from tune.capacity.search import EARLY_STOP_MARGIN_FRAC
from tune.core.arrays import FloatArray
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.candidates import Candidates
from tune.surrogate import prefill_tables
from tune.surrogate.acquisition import early_stop_threshold_qps
from tune.surrogate.credible_interval import credible_interval, expected_capacity_qps
from tune.surrogate.gaussian_process import gp_expected_improvement
from tune.surrogate.improvement import improvement
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import LEADERS, MISMATCH_IMPROVEMENT_FRAC, SurrogateOptimizer
from tune.surrogate.prior import CALIBRATED
from tune.surrogate.summary import summarise_posterior

pytestmark = pytest.mark.slow


def indices_of(observations: Sequence[Observation]) -> list[int]:
    """Return the configurations that were observed."""
    return [observation.index for observation in observations]


def test_it_finds_the_best_and_estimates_the_slow_parameter(search: SurrogateOptimizer) -> None:
    truth, observations = true_capacities_qps(search), observe(search, 6)
    assert max(observation.qps for observation in observations) >= 0.99 * max(truth)
    prediction = search.predict(observations)
    posterior = credible_interval(search.prior.factors(prediction.samples)["prefill_scale"])
    prior = credible_interval(search.prior.factors(search.prior_samples)["prefill_scale"])
    assert posterior.low < SLOW < posterior.high
    assert posterior.high / posterior.low < 0.7 * prior.high / prior.low
    assert prediction.expected_capacity_qps == pytest.approx(truth, rel=0.12)


def test_pool_capacities_inform_more_than_the_capacity_alone(search: SurrogateOptimizer) -> None:
    observations = measure_all(search, {"prefill_scale": SLOW, "decode_scale": 1.6})
    truth = [observation.qps for observation in observations]
    capacity_only = search.predict([Observation(0, "measured", truth[0])])
    with_pools = search.predict(observations[:1])
    intervals = [
        credible_interval(search.prior.factors(prediction.samples)["decode_scale"])
        for prediction in (capacity_only, with_pools)
    ]
    widths = [np.log(interval.high / interval.low) for interval in intervals]
    assert widths[1] < 0.95 * widths[0], "prefill limits: the capacity says little about decode"
    log_error = [
        np.abs(np.log(prediction.expected_capacity_qps / truth)).mean()
        for prediction in (capacity_only, with_pools)
    ]
    assert log_error[1] < 0.7 * log_error[0]


def test_a_configuration_below_its_alternatives_is_stopped_early(search: SurrogateOptimizer) -> None:
    """The network is unexpectedly slow: the first configuration that meets it stops, the best does not."""
    truth = measure_all(search, {"kv_transfer_bytes_per_s": 0.05})
    best, observations = max(truth, key=lambda observation: observation.qps), [truth[0]]
    while best not in observations:
        suggestion = search.suggest(observations)
        assert suggestion
        observation = truth[suggestion.index]
        stopped = observation.qps < (1 - EARLY_STOP_MARGIN_FRAC) * suggestion.early_stop_below_qps
        observations.append(replace(observation, status="forecast") if stopped else observation)
    assert [observation.status for observation in observations] == ["measured", "forecast", "measured"]


def test_alternatives_that_may_crash_lower_the_early_stop_threshold(search: SurrogateOptimizer) -> None:
    crashed = (6, 11)
    observations = [measure_all(search)[0], *(Observation(index, "crashed") for index in crashed)]
    suggestion = search.suggest(observations)
    assert suggestion
    known = (0, *crashed, suggestion.index)
    prediction = suggestion.prediction
    others = [index for index in range(len(search.specs)) if index not in known]
    certain_to_run = early_stop_threshold_qps(
        prediction.log_mean[:, suggestion.index],
        prediction.sd[:, suggestion.index],
        prediction.capacity_qps[:, others],
    )
    assert 0 < suggestion.early_stop_below_qps < 0.95 * certain_to_run


def test_the_pools_of_what_leads_are_simulated(
    settings: Settings, few: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the eight prefill pools two are simulated at first."""
    monkeypatch.setattr(prefill_tables, "MOST_SIMULATED_FIRST", 2)
    monkeypatch.setattr(prefill_tables, "SIMULATED_FIRST", 2)
    assert settings.cluster.calibration
    search = SurrogateOptimizer(few.specs, few.features, few.matters, settings.cluster.calibration, 0)
    every = np.arange(len(few.specs))
    assert not search.emulator.is_simulated(every).all()
    prediction = search.predict([])
    gain = search.expected_improvement(prediction, [])
    assert search.emulator.is_simulated(gain.argsort()[-LEADERS:]).all()


def test_the_gain_that_ranked_a_prediction_is_that_of_the_prediction(
    search: SurrogateOptimizer,
) -> None:
    observations = observe(search, 3)
    for known in (observations[:1], observations):
        prediction = search.predict(known)
        gain = search.expected_improvement(prediction, known)
        assert (gain == improvement(prediction, known, search.features, search.rates_qps)).all()


def test_suggestions_are_reproducible_and_never_repeat(search: SurrogateOptimizer) -> None:
    first, second = observe(search, 5), observe(search, 5)
    assert first == second
    assert len(set(indices_of(first))) == 5


def test_suggestions_for_parallel_trials_differ(search: SurrogateOptimizer) -> None:
    observations = observe(search, 3)
    for _ in range(3):
        suggestion = search.suggest(observations)
        assert suggestion
        assert suggestion.index not in indices_of(observations)
        observations.append(Observation(suggestion.index, "pending"))


def test_pending_trials_change_no_prediction_and_lower_the_gain_of_what_resembles_them(
    search: SurrogateOptimizer,
) -> None:
    observations = observe(search, 3)
    prediction, first = search.predict(observations), search.suggest(observations)
    assert first
    alone = search.expected_improvement(prediction, observations)
    with_pending = [*observations, Observation(first.index, "pending")]
    second = search.suggest(with_pending)
    assert second
    assert (second.prediction.expected_capacity_qps == prediction.expected_capacity_qps).all()
    beside = search.expected_improvement(prediction, with_pending)
    assert (beside <= alone + 1e-12).all()
    others = np.setdiff1d(np.arange(len(search.specs)), indices_of(with_pending))
    capacity = prediction.capacity_qps
    worth = [np.maximum(capacity[:, index], capacity[:, first.index]).mean() for index in others.tolist()]
    assert worth[others.tolist().index(second.index)] >= 0.98 * np.median(worth)


def test_predictions_beside_pending_trials_rest_on_what_was_observed(search: SurrogateOptimizer) -> None:
    observations = observe(search, 3)
    known, observed = search.predict(observations), indices_of(observations)
    pending = [index for index in range(len(search.specs)) if index not in observed][:3]
    suggestion = search.suggest([*observations, *(Observation(index, "pending") for index in pending)])
    assert suggestion
    beside, alone = (
        expected_capacity_qps(prediction, suggestion.index) for prediction in (suggestion.prediction, known)
    )
    assert beside == alone


def test_the_calibrated_rack_is_recognised_and_predicted_narrowly(search: SurrogateOptimizer) -> None:
    def widths(factors: dict[str, float]) -> tuple[float, float]:
        """Return the probability of the calibrated rack, and the median log width of the intervals."""
        truth = measure_all(search, factors)
        prediction = search.predict([truth[0], truth[5]])
        calibrated = search.prior.calibration_error(prediction.samples) <= CALIBRATED
        intervals = [expected_capacity_qps(prediction, index) for index in range(len(truth))]
        return float(calibrated.mean()), float(np.median([np.log(i.high / i.low) for i in intervals]))

    (calibrated, narrow), (other, wide) = widths({}), widths({"prefill_scale": 1.5, "decode_scale": 0.6})
    assert calibrated > 0.9
    assert other == 0
    assert narrow < 0.5 * wide


@pytest.mark.parametrize("noise_sd", [0.001, 0.02])
def test_the_noise_of_the_measurements_is_learned(search: SurrogateOptimizer, noise_sd: float) -> None:
    """Each measurement has a noise of its own, which both pools share as they do in one deployment."""
    factors = np.exp(np.random.default_rng(1).normal(0, noise_sd, len(search.specs)))
    observations = [
        replace(
            observation,
            qps=factor * observation.qps,
            prefill_capacity_qps=factor * (observation.prefill_capacity_qps or 0.0),
            decode_capacity_qps=factor * (observation.decode_capacity_qps or 0.0),
        )
        for observation, factor in zip(measure_all(search), factors.tolist(), strict=True)
    ]
    learned = search.predict(observations[:10]).noise_sd.mean()
    least, most = min(known := search.prior.hypothesis_values("noise_sd")), max(known)
    assert learned == pytest.approx(least if noise_sd < least else most, abs=0.35 * (most - least))


def test_a_trial_that_may_be_better_than_the_best_is_rated(search: SurrogateOptimizer) -> None:
    truth = measure_all(search)
    order = sorted(truth, key=lambda observation: -observation.qps)
    near, far = replace(order[1], qps=order[0].qps), order[-1]
    observations = [order[0], near, far]
    rows = [(f"t{number}", number, seen) for number, seen in enumerate(observations)]
    summary = summarise_posterior(search, search.predict(observations), observations, rows)
    best = max(summary.trials, key=lambda trial: trial.expected_capacity_qps or 0.0)
    rated = {trial.number: trial.better_frac for trial in summary.trials}
    assert rated[best.number] is None
    assert 0.1 < rated[1 - best.number] <= 0.5  # type: ignore[operator]
    assert rated[2] < 0.01  # type: ignore[operator]


def test_nothing_is_suggested_when_all_are_observed(search: SurrogateOptimizer) -> None:
    observations = [
        Observation(index, "measured", qps) for index, qps in enumerate(true_capacities_qps(search))
    ]
    assert search.suggest(observations) is None
    assert search.expected_improvement(search.predict(observations), observations).max() == 0


def test_a_gaussian_process_takes_over_when_the_simulator_is_wrong(search: SurrogateOptimizer) -> None:
    """On hardware unlike any in the prior, where small chunks serve twice as much."""
    small = search.features[:, 1] < 0.5
    truth = [
        replace(
            observation,
            qps=2 * observation.qps,
            prefill_capacity_qps=2 * observation.prefill_capacity_qps,
            decode_capacity_qps=2 * observation.decode_capacity_qps,
        )  # type: ignore[operator]
        if small[observation.index]
        else observation
        for observation in measure_all(search)
    ]
    observations = [truth[index] for index in (2, 7, 1, 9)]
    prediction, observed = search.predict(observations), indices_of(observations)
    assert search.expected_improvement(prediction, observations).max() < MISMATCH_IMPROVEMENT_FRAC
    suggestion = search.suggest(observations)
    assert suggestion
    log_qps = np.log([observation.qps for observation in observations])
    improvement = gp_expected_improvement(
        search.features, np.array(observed), log_qps, float(np.exp(log_qps.max()))
    )
    candidates = [index for index in range(len(truth)) if index not in observed]
    assert suggestion.index == max(candidates, key=lambda index: improvement[index])
    assert suggestion.index != max(candidates, key=lambda index: prediction.expected_capacity_qps[index])
    assert suggestion.expected_improvement_frac < MISMATCH_IMPROVEMENT_FRAC, (
        "the study may still end: the simulator predicts no improvement"
    )


def test_promising_neighbours_are_added_and_predicted_like_the_first(
    search: SurrogateOptimizer, few: Candidates
) -> None:
    """Begin with four of the sixteen; each neighbourhood is all that have one setting in common."""
    index_of = {0: 0, 1: 1, 2: 2, 3: 3}
    added: list[int] = [0, 1, 2, 3]

    def neighbours(indices: Sequence[int]) -> tuple[list[int], list[TrialSpec], FloatArray]:
        places = {added[index] for index in indices}
        near = [k for k in range(16) if any((few.features[k] == few.features[p]).any() for p in places)]
        new = [place for place in near if place not in index_of]
        for place in new:
            index_of[place] = len(added)
            added.append(place)
        return [index_of[place] for place in near], [few.specs[place] for place in new], few.features[new]

    growing = SurrogateOptimizer(
        few.specs[:4], few.features[:4], few.matters, search.calibration, 0, neighbours=neighbours
    )
    truth = measure_all(search)
    suggestion = growing.suggest([truth[0]])
    assert suggestion
    whole = search.suggest([truth[0]])
    assert whole
    assert added[suggestion.index] == whole.index
    places = np.array(added)
    predicted = suggestion.prediction.is_predicted
    assert predicted.sum() > 4
    assert suggestion.prediction.expected_capacity_qps[predicted] == pytest.approx(
        whole.prediction.expected_capacity_qps[places[predicted]], rel=0.05
    )


def test_a_crash_lowers_the_score_of_its_neighbours(search: SurrogateOptimizer) -> None:
    observations = observe(search, 2)
    score = search.expected_improvement(search.predict(observations), observations)
    likely = int(score.argmax())
    with_crash = [*observations, Observation(likely, "crashed")]
    lowered = search.expected_improvement(search.predict(with_crash), with_crash)
    assert lowered[likely] == 0
    nearest = np.argsort(((search.features - search.features[likely]) ** 2).sum(1))[1:4]
    unobserved = [index for index in nearest if index not in indices_of(with_crash)]
    assert all(lowered[index] <= score[index] for index in unobserved)
    assert any(lowered[index] < score[index] for index in unobserved)


def test_a_limit_and_a_forecast_inform_less_than_a_measurement(search: SurrogateOptimizer) -> None:
    observations = observe(search, 2)
    prediction = search.predict(observations)
    unobserved = [index for index in range(len(search.specs)) if index not in indices_of(observations)]
    index = max(unobserved, key=lambda index: prediction.expected_capacity_qps[index])
    qps = 0.8 * float(prediction.expected_capacity_qps[index])
    limit, forecast, measured = (
        search.predict([*observations, Observation(index, status, qps)]).expected_capacity_qps[index]
        for status in ("below", "forecast", "measured")
    )
    assert qps * 0.95 < measured < forecast < prediction.expected_capacity_qps[index]
    assert limit < prediction.expected_capacity_qps[index]


def test_a_forecast_is_not_the_rate_to_improve_on(search: SurrogateOptimizer) -> None:
    observations = observe(search, 2)
    unobserved = [index for index in range(len(search.specs)) if index not in indices_of(observations)]
    best_qps = max(observation.qps for observation in observations)
    observations = [*observations, Observation(unobserved[0], "forecast", 1.5 * best_qps)]
    score = search.expected_improvement(search.predict(observations), observations)
    assert score[unobserved[0]] == 0
    assert score.max() > 0


def test_unique_samples_rebuild_all_samples(search: SurrogateOptimizer) -> None:
    samples = search.prior_samples[np.array([3, 3, 5, 3, 9, 5])]
    unique, inverse = samples.unique()
    assert len(unique) == 3
    rebuilt = unique[inverse]
    assert (rebuilt.normal == samples.normal).all()
    assert (rebuilt.choice == samples.choice).all()
