"""Test what the record says of the posterior."""

from __future__ import annotations

import pytest
from support.hidden_parameters import observe

from tune.spec.kind import kind_of
from tune.surrogate.credible_interval import expected_capacity_qps
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.summary import summarise_posterior
from tune.workload.length_summary import mean_sequence


def test_the_record_describes_the_posterior(search: SurrogateOptimizer) -> None:
    observations = observe(search, 5)
    prediction = search.predict(observations)
    trials = [(f"t{number}", number, observation) for number, observation in enumerate(observations)]
    summary = summarise_posterior(search, prediction, observations, trials)
    assert summary.trials_observed == 5
    assert [trial.number for trial in summary.trials] == [0, 1, 2, 3, 4]
    assert all(abs(trial.standardised_residual) < 2 for trial in summary.trials)
    assert summary.calibration["prefill_scale"] > search.calibration.prefill_scale
    routers = [row.posterior_frac for row in summary.hypotheses if row.name.startswith("router=")]
    assert sum(routers) == pytest.approx(1)
    assert summary.expected_improvement_frac >= 0
    expected = expected_capacity_qps(prediction, observations[-1].index)
    assert expected.low < observations[-1].qps < expected.high


def test_the_record_holds_the_best_candidate_of_every_kind(search: SurrogateOptimizer) -> None:
    observations = observe(search, 3)
    prediction = search.predict(observations)
    kinds = summarise_posterior(search, prediction, observations, ()).kinds
    by_trial_id = {spec.trial_id: index for index, spec in enumerate(search.specs)}
    best = [by_trial_id[kind.trial_id] for kind in kinds]
    assert {kind.kind for kind in kinds} == {kind_of(spec) for spec in search.specs}
    assert len({kind.kind for kind in kinds}) == len(kinds) > 1
    expected = prediction.expected_capacity_qps
    assert sorted(best, key=lambda index: -expected[index]) == best
    for kind, index in zip(kinds, best, strict=True):
        alike = [i for i, spec in enumerate(search.specs) if kind_of(spec) == kind.kind]
        assert expected[index] == max(expected[alike])
        assert kind.is_measured == (index in [observation.index for observation in observations])
        capacity, spec = expected_capacity_qps(prediction, index), search.specs[index]
        tokens = mean_sequence(spec.load.dataset).answer_tokens * capacity.median / spec.hardware.gpus
        assert kind.expected_output_tps_per_gpu.median == pytest.approx(tokens)


def test_a_kind_whose_best_candidate_crashed_is_known_by_the_next(search: SurrogateOptimizer) -> None:
    observations = observe(search, 3)
    best = int(search.predict(observations).expected_capacity_qps.argmax())
    observations = [*observations, Observation(best, "crashed")]
    kinds = summarise_posterior(search, search.predict(observations), observations, ()).kinds
    assert search.specs[best].trial_id not in {kind.trial_id for kind in kinds}
