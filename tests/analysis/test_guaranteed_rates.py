"""Test guaranteed rates from repeated capacities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.outcomes import failed, infeasible, measured
from support.request_logs import spec

from tune.analysis.guaranteed_rates import RemeasuredConfiguration, guarantee_rates
from tune.analysis.repeated_capacities import PooledVariance, ShuffleNoise, pooled, student_quantile
from tune.errors import ResumableError
from tune.records.confirmation import Confirmation, read_confirmation, repeats_root, write_confirmation
from tune.records.outcome import CapacityQps, Outcome
from tune.spec.load import Load

CONFIDENCE = 0.95
LOAD = spec().load
SHUFFLES = ShuffleNoise(0.012, 15)

rates = st.floats(min_value=0.5, max_value=50.0)
samples = st.lists(st.lists(rates, min_size=1, max_size=5), min_size=1, max_size=4).filter(
    lambda drawn: any(len(sample) > 1 for sample in drawn)
)


def repeat(capacity_qps: float | None, verified_frac: float | None = 1.0, **figures) -> Outcome:
    low = capacity_qps * verified_frac if capacity_qps and verified_frac else None
    capacity = CapacityQps(low=low, high=None, stopped_early=False, estimate=capacity_qps)
    return measured(feasible=low is not None, **figures).model_copy(update={"capacity_qps": capacity})


def candidate(number: int, outcomes: list[Outcome], load: Load = LOAD) -> RemeasuredConfiguration:
    return RemeasuredConfiguration(
        measured(number, overrides=["load.target_qps=17"]).model_copy(update={"trial_id": f"t{number}"}),
        tuple((load, o) for o in outcomes),
        SHUFFLES,
    )


def confirmation_of(*capacities: list[float], confidence: float = CONFIDENCE) -> Confirmation:
    """Return the confirmation of configurations with these capacities and equal figures otherwise."""
    candidates = [candidate(n, [repeat(qps) for qps in rates]) for n, rates in enumerate(capacities)]
    return guarantee_rates("x", candidates, confidence, study_gpu_hours=100.0, gpu_hours=30.0)


def confirmation_of_outcomes(outcomes: list[Outcome], load: Load = LOAD) -> Confirmation:
    candidates = [candidate(0, outcomes, load), candidate(1, [repeat(10.0), repeat(10.2)])]
    return guarantee_rates("x", candidates, CONFIDENCE, study_gpu_hours=100.0, gpu_hours=30.0)


def test_guaranteed_rates_equal_hand_arithmetic() -> None:
    confirmation = confirmation_of([10.0, 10.0 * math.exp(0.02)], [9.0, 9.0 * math.exp(0.04)])
    assert confirmation.deployment_sd_frac == pytest.approx(math.sqrt((2 * 0.01**2 + 2 * 0.02**2) / 2))
    assert confirmation.degrees_of_freedom == 2
    first, second = confirmation.configurations
    mean = 10.0 * math.exp(0.01)
    t_two_sided = 4.3027  # Student's t on 2 degrees of freedom, 0.975, from tables
    half = t_two_sided * math.sqrt(0.0005) / math.sqrt(2)
    assert first.capacity_qps
    assert first.capacity_qps.mean == pytest.approx(mean)
    assert first.capacity_qps.low == pytest.approx(mean * math.exp(-half), rel=1e-4)
    assert first.capacity_qps.high == pytest.approx(mean * math.exp(half), rel=1e-4)
    deployment, shuffle = 1.5 * 0.0005, 0.012**2
    free = (deployment + shuffle) ** 2 / (deployment**2 / 2 + shuffle**2 / 15)
    blom_of_two = 0.58946  # normal quantile of 1.625 / 2.25
    margin = student_quantile(0.95, free) * math.sqrt(deployment + shuffle)
    margin += blom_of_two * math.sqrt(0.0005 / 2)
    assert first.guaranteed_qps == pytest.approx(mean * math.exp(-margin), rel=1e-3)
    assert first.guaranteed_qps is not None
    assert first.margin_frac == pytest.approx(1 - first.guaranteed_qps / mean)
    assert first.tokens_per_query == pytest.approx(9000.0 / 15.65)
    assert first.output_tps_per_gpu == pytest.approx(9000.0 / 15.65 * first.guaranteed_qps / first.gpus)
    assert first.overrides == (f"load.target_qps={first.guaranteed_qps!r}", "load.mode=fixed")
    assert first.slo_met_repeats == 2
    assert (first.tied, second.tied) == (None, True)
    assert second.loss
    behind = math.log(10.0 / 9.0) - 0.01
    half = t_two_sided * math.sqrt(0.0005)
    assert second.loss.mean_frac == pytest.approx(1 - math.exp(-behind))
    assert second.loss.low_frac == pytest.approx(1 - math.exp(half - behind), abs=1e-4)
    assert second.loss.high_frac == pytest.approx(1 - math.exp(-half - behind), abs=1e-4)


def test_configurations_far_apart_are_not_tied() -> None:
    confirmation = confirmation_of([9.0, 9.1, 9.2], [10.0, 10.1, 10.2], [10.05, 10.15, 10.0])
    assert [(configuration.number, configuration.tied) for configuration in confirmation.configurations] == [
        (1, None),
        (2, True),
        (0, False),
    ]


def test_ranking_is_by_throughput_per_gpu_not_rate() -> None:
    fast = candidate(0, [repeat(20.0, tps=4000.0), repeat(20.2, tps=4000.0)])
    rich = candidate(1, [repeat(12.0, tps=9000.0), repeat(12.2, tps=9000.0)])
    confirmation = guarantee_rates("x", [fast, rich], CONFIDENCE, study_gpu_hours=0.0, gpu_hours=0.0)
    assert [configuration.number for configuration in confirmation.configurations] == [1, 0]


def test_one_repeat_gives_a_mean_without_interval() -> None:
    confirmation = confirmation_of([16.0], [15.0])
    first = confirmation.configurations[0]
    assert confirmation.deployment_sd_frac is None
    assert confirmation.degrees_of_freedom == 0
    assert first.capacity_qps
    assert (first.capacity_qps.mean, first.capacity_qps.low) == (pytest.approx(16.0), None)
    assert (first.guaranteed_qps, first.output_tps_per_gpu, first.overrides, first.tied) == (
        None,
        None,
        (),
        None,
    )
    assert first.reason is not None
    assert "confirm.repeats=2" in first.reason


def test_one_repeat_uses_the_pooled_deviation_of_others() -> None:
    (_, configuration) = confirmation_of([16.0, 16.3], [15.0]).configurations
    assert configuration.guaranteed_qps is not None
    assert configuration.guaranteed_qps < 15.0


def test_failed_repeat_is_ignored_and_the_others_count() -> None:
    first = confirmation_of_outcomes([repeat(16.0), failed(), repeat(16.2)]).configurations[0]
    assert first.guaranteed_qps is not None
    assert [repeat.capacity_qps for repeat in first.repeats] == [16.0, None, 16.2]
    assert first.repeats[1].reason == "node gb07 went down"


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        (infeasible(), "a deployment could not run as configured: decode.max_num_tokens"),
        (repeat(0.0), "no rate is expected to hold"),
    ],
)
def test_configuration_that_failed_to_run_once_has_no_guaranteed_rate(odd: Outcome, says: str) -> None:
    confirmation = confirmation_of_outcomes([repeat(16.0), odd, repeat(16.2)])
    last = confirmation.configurations[-1]
    assert last.number == 0, "ranked last"
    assert (last.capacity_qps, last.guaranteed_qps) == (None, None)
    assert says in str(last.reason)
    assert confirmation.degrees_of_freedom == 1, "its capacities are no part of the noise"


def test_no_rate_is_guaranteed_where_no_full_run_held() -> None:
    first = confirmation_of_outcomes([repeat(16.0, None), repeat(16.2, None)]).configurations[0]
    assert (first.guaranteed_qps, first.reason) == (None, "no full run of its repeats held")
    assert first.capacity_qps, "it still has a mean capacity"


def test_no_rate_is_guaranteed_that_no_full_run_reached() -> None:
    first = confirmation_of_outcomes([repeat(16.0, 0.9), repeat(16.2, 0.95)]).configurations[0]
    assert first.guaranteed_qps == pytest.approx(0.95 * 16.2)
    assert first.slo_met_repeats == 1, "never 0: a rate that held in no repeat is not stated"


def test_estimate_from_invalid_runs_is_ignored() -> None:
    confirmation = confirmation_of_outcomes(
        [repeat(16.0, valid=False, reason="a stall"), repeat(16.0, valid=False, reason="a stall")]
    )
    last = confirmation.configurations[-1]
    assert last.reason == "no repeat gives an estimate of its capacity: a stall"


def test_capacities_orders_of_magnitude_apart_give_no_rate() -> None:
    (configuration,) = confirmation_of([0.01, 50.0], confidence=0.99).configurations
    assert configuration.guaranteed_qps is None
    assert "differ by" in str(configuration.reason)


@given(samples)
def test_scaling_all_rates_scales_the_result(drawn: list[list[float]]) -> None:
    scaled = [[3 * qps for qps in sample] for sample in drawn]
    once, thrice = (
        sorted(confirmation_of(*rates).configurations, key=lambda each: each.number)
        for rates in (drawn, scaled)
    )
    for left, right in zip(once, thrice, strict=True):
        assert left.capacity_qps
        assert right.capacity_qps
        assert right.capacity_qps.mean == pytest.approx(3 * left.capacity_qps.mean)
        if left.guaranteed_qps and right.guaranteed_qps:
            assert right.guaranteed_qps == pytest.approx(3 * left.guaranteed_qps, rel=2.1e-3), (
                "four digits, down"
            )


@given(samples)
def test_guaranteed_rate_is_at_most_the_mean_and_was_reached(drawn: list[list[float]]) -> None:
    for configuration in confirmation_of(*drawn).configurations:
        if configuration.guaranteed_qps:
            assert configuration.capacity_qps
            assert configuration.capacity_qps.low is not None
            assert configuration.guaranteed_qps <= configuration.capacity_qps.mean * (1 + 1e-12)
            assert configuration.capacity_qps.low <= configuration.capacity_qps.mean * (1 + 1e-12)
            assert configuration.slo_met_repeats >= 1


@given(samples)
def test_a_loss_lies_within_its_interval_and_is_none_of_the_best(drawn: list[list[float]]) -> None:
    first, *others = confirmation_of(*drawn).configurations
    assert first.loss is None
    for other in others:
        if other.loss:
            assert other.loss.low_frac <= other.loss.mean_frac <= other.loss.high_frac
            assert other.loss.mean_frac >= 0
            assert other.tied == (other.loss.low_frac <= 0)


@given(st.floats(0.001, 0.2), st.integers(1, 30), st.integers(1, 9), st.integers(1, 6), st.floats(0, 0.05))
def test_repeats_narrow_and_noise_widens_the_margin(
    sd: float, free: int, n: int, among: int, shuffle_sd: float
) -> None:
    noise, shuffles = PooledVariance(sd, free), ShuffleNoise(shuffle_sd, 15)

    def margin(level: float = CONFIDENCE, *, repeats: int = n, kinds: int = among) -> float:
        return noise.next_run_margin(level, repeats, kinds, shuffles)

    assert margin(repeats=n + 1) < margin() < margin(kinds=among + 1)
    assert margin() < margin(0.99)
    assert margin() < PooledVariance(1.1 * sd, free).next_run_margin(CONFIDENCE, n, among, shuffles)
    assert PooledVariance(sd, free + 1).two_sided(CONFIDENCE, 1 / n) < noise.two_sided(CONFIDENCE, 1 / n)


def test_equal_deployments_leave_the_margin_of_the_shuffles() -> None:
    margin = PooledVariance(0.0, 6).next_run_margin(CONFIDENCE, 3, 3, SHUFFLES)
    assert margin == pytest.approx(1.753 * 0.012, rel=1e-3), "Student's t on 15 degrees of freedom, 0.95"
    assert PooledVariance(0.0, 6).next_run_margin(CONFIDENCE, 3, 3, ShuffleNoise(0.0, 15)) == 0.0


@given(samples)
def test_doubled_repeats_never_widen_the_margin(drawn: list[list[float]]) -> None:
    logs = [[math.log(qps) for qps in sample] for sample in drawn]
    once, twice = pooled(logs), pooled([2 * sample for sample in logs])
    assert once
    assert twice
    n = len(drawn[0])
    assert twice.two_sided(CONFIDENCE, 1 / (2 * n)) <= once.two_sided(CONFIDENCE, 1 / n) * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [(0.0, 0.0, 0.0), (0.0, -0.01, -0.02), (0.0, -0.04, -0.08)])
@pytest.mark.parametrize("noise", [0.001, 0.02])
def test_a_further_run_at_the_guaranteed_rate_of_the_winner_holds_as_often_as_stated(gaps, noise) -> None:
    """2,000 studies, three configurations three times, the best mean chosen: 95 % are promised."""
    draws, true = np.random.default_rng(7), 15.0 * np.exp(np.array(gaps))
    capacities = true[None, :, None] * np.exp(draws.normal(0.0, noise, (2000, 3, 3)))
    further = np.exp(draws.normal(0.0, math.hypot(noise, SHUFFLES.sd), 2000))
    held = 0
    for sample, factor in zip(capacities, further, strict=True):
        first = confirmation_of(*sample.tolist()).configurations[0]
        assert first.guaranteed_qps is not None
        held += first.guaranteed_qps <= true[first.number] * factor
    assert 0.935 <= held / 2000 <= 0.985


def test_a_record_of_another_guarantee_states_no_rate(tmp_path: Path) -> None:
    study = tmp_path / "old"
    path = write_confirmation(repeats_root(study), confirmation_of([16.0, 16.2], [15.0]))
    plain = json.loads(path.read_text())
    del plain["guarantee"]
    path.write_text(json.dumps(plain))
    old = read_confirmation(study)
    assert old
    assert old.configurations[0].guaranteed_qps, "it stays as it was written"
    shown = old.current().configurations[0]
    assert (shown.guaranteed_qps, shown.overrides) == (None, ())
    assert "action=confirm" in str(shown.reason)


def test_confirmation_reads_back_and_torn_file_is_named(tmp_path: Path) -> None:
    study = tmp_path / "split.v2"
    assert read_confirmation(study) is None
    confirmation = confirmation_of([16.0, 16.2], [15.0])
    path = write_confirmation(repeats_root(study), confirmation)
    assert path == tmp_path / "split.v2.confirm" / "confirmation.json"
    assert read_confirmation(study) == confirmation
    plain = json.loads(path.read_text())
    assert plain["schema"] == 2
    assert plain["configurations"][0]["capacity_qps"].keys() == {"mean", "low", "high"}
    path.write_text('{"schema": 2')
    with pytest.raises(ResumableError, match="run action=confirm again"):
        read_confirmation(study)
