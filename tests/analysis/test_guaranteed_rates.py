"""Guaranteed rates from repeated capacities."""

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

from tune.analysis.guaranteed_rates import PooledVariance, RemeasuredConfiguration, guarantee_rates, pooled
from tune.errors import ResumableError
from tune.records.confirmation import Confirmation, read_confirmation, repeats_root, write_confirmation
from tune.records.outcome import CapacityQps, Outcome
from tune.spec.load import Load

CONFIDENCE = 0.95
LOAD = spec().load

rates = st.floats(min_value=0.5, max_value=50.0)
samples = st.lists(st.lists(rates, min_size=1, max_size=5), min_size=1, max_size=4).filter(
    lambda drawn: any(len(sample) > 1 for sample in drawn)
)


def repeat(capacity_qps: float | None, verified_qps: float | None = 15.0, **figures) -> Outcome:
    low = verified_qps if capacity_qps else None
    capacity = CapacityQps(low=low, high=None, censored=False, estimate=capacity_qps)
    return measured(feasible=low is not None, **figures).model_copy(update={"capacity_qps": capacity})


def candidate(number: int, outcomes: list[Outcome], load: Load = LOAD) -> RemeasuredConfiguration:
    return RemeasuredConfiguration(
        measured(number, overrides=["load.target_qps=17"]), tuple((load, o) for o in outcomes)
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
    t_two_sided, t_of_two = 4.3027, 4.2432  # Student's t on 2 degrees: 0.975 and sqrt(0.95), from tables
    half = t_two_sided * math.sqrt(0.0005) / math.sqrt(2)
    assert first.capacity_qps
    assert first.capacity_qps.mean == pytest.approx(mean)
    assert first.capacity_qps.low == pytest.approx(mean * math.exp(-half), rel=1e-4)
    assert first.capacity_qps.high == pytest.approx(mean * math.exp(half), rel=1e-4)
    expected = mean * math.exp(-t_of_two * math.sqrt(0.0005 / 2))
    assert first.guaranteed_qps == pytest.approx(expected, rel=1e-3)
    assert first.guaranteed_qps is not None
    assert first.margin_frac == pytest.approx(1 - first.guaranteed_qps / mean)
    expected = mean * math.exp(-t_of_two * math.sqrt(0.0005 * 1.5))
    assert first.next_deployment_qps == pytest.approx(expected, rel=1e-3)
    assert first.tokens_per_query == pytest.approx(9000.0 / 15.65)
    assert first.output_tps_per_gpu == pytest.approx(9000.0 / 15.65 * first.guaranteed_qps / first.gpus)
    assert first.overrides == (f"load.target_qps={first.guaranteed_qps!r}", "load.mode=fixed")
    assert first.slo_held_repeats == 2 * (first.guaranteed_qps <= 15.0)
    assert (first.tied, second.tied) == (None, True)


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


def test_estimate_counts_without_a_verified_rate() -> None:
    first = confirmation_of_outcomes([repeat(16.0, None), repeat(16.2, None)]).configurations[0]
    assert first.guaranteed_qps is not None
    assert first.slo_held_repeats == 0


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
    once, thrice = (
        confirmation_of(*drawn),
        confirmation_of(*[[3 * qps for qps in sample] for sample in drawn]),
    )
    for left, right in zip(once.configurations, thrice.configurations, strict=True):
        assert left.capacity_qps
        assert right.capacity_qps
        assert right.capacity_qps.mean == pytest.approx(3 * left.capacity_qps.mean)
        if left.guaranteed_qps and right.guaranteed_qps:
            assert right.guaranteed_qps == pytest.approx(3 * left.guaranteed_qps, rel=2.1e-3), (
                "four digits, down"
            )


@given(samples)
def test_guaranteed_rate_lies_between_next_deployment_and_mean(drawn) -> None:
    for configuration in confirmation_of(*drawn).configurations:
        if configuration.guaranteed_qps and configuration.next_deployment_qps:
            assert configuration.capacity_qps
            assert (
                configuration.next_deployment_qps
                <= configuration.guaranteed_qps
                <= configuration.capacity_qps.mean * (1 + 1e-12)
            )
            assert configuration.capacity_qps.low is not None
            assert configuration.capacity_qps.low <= configuration.capacity_qps.mean * (1 + 1e-12)


@given(st.floats(min_value=0.001, max_value=0.2), st.integers(1, 30), st.integers(1, 9), st.integers(1, 6))
def test_repeats_narrow_and_candidates_widen_the_bound(sd: float, free: int, n: int, among: int) -> None:
    noise, surer = PooledVariance(sd, free), PooledVariance(sd, free + 1)
    assert noise.one_sided(CONFIDENCE, 1 / (n + 1), among) < noise.one_sided(CONFIDENCE, 1 / n, among)
    assert surer.one_sided(CONFIDENCE, 1 / n, among) < noise.one_sided(CONFIDENCE, 1 / n, among)
    assert surer.two_sided(CONFIDENCE, 1 / n) < noise.two_sided(CONFIDENCE, 1 / n)
    assert noise.one_sided(CONFIDENCE, 1 / n, among) < noise.one_sided(CONFIDENCE, 1 / n, among + 1)
    assert noise.one_sided(CONFIDENCE, 1 / n, among) < noise.one_sided(0.99, 1 / n, among)


@given(samples)
def test_doubled_repeats_never_widen_the_bound(drawn: list[list[float]]) -> None:
    logs = [[math.log(qps) for qps in sample] for sample in drawn]
    once, twice = pooled(logs), pooled([2 * sample for sample in logs])
    assert once
    assert twice
    n = len(drawn[0])
    assert twice.one_sided(CONFIDENCE, 1 / (2 * n), 3) <= once.one_sided(CONFIDENCE, 1 / n, 3) * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [(0.0, 0.0, 0.0), (0.0, -0.01, -0.02), (0.0, -0.04, -0.08)])
def test_guaranteed_rate_of_the_winner_is_below_its_true_capacity(gaps) -> None:
    """2,000 studies at 2 % noise, three configurations three times, the best mean chosen: 95 % are promised.
    A bound on each mean by itself holds in 86 %, 89 % and 95 %."""
    draws, true = np.random.default_rng(7), 15.0 * np.exp(np.array(gaps))
    capacities = true[None, :, None] * np.exp(draws.normal(0.0, 0.02, (2000, 3, 3)))
    below = 0
    for sample in capacities:
        first = confirmation_of(*sample.tolist()).configurations[0]
        assert first.guaranteed_qps is not None
        below += first.guaranteed_qps <= true[first.number]
    assert below / 2000 >= 0.94


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
