"""Test the bisection on deployments that hold their SLO up to a rate, and on others that do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.loads import make_load

from tune.capacity.bisection import MAX_RATE_FACTOR, bisect_capacity
from tune.capacity.search import MAX_FULL_RUNS, CapacityResult, ProbePlan, ProbeVerdict
from tune.records.requests import RequestLog
from tune.spec.load import Load

LOAD = make_load(samples=8313).model_copy(update={"target_qps": 10.0})
NO_LOG = RequestLog(*[np.zeros(0, np.int64)] * 7, np.zeros(0, "<U1"))
SHORT = LOAD.model_copy(update={"min_queries": 460, "min_duration_s": 1.0, "concatenate_permutation": False})


def run_search(
    true_qps: float, load: Load = LOAD, early_stop_qps: float | None = None
) -> tuple[CapacityResult, list[ProbeVerdict]]:
    def measure(plan: ProbePlan) -> tuple[RequestLog, bool]:
        return NO_LOG, plan.target_qps <= true_qps

    *verdicts, result = bisect_capacity(load, measure, early_stop_qps)
    assert isinstance(result, CapacityResult)
    return result, [verdict for verdict in verdicts if isinstance(verdict, ProbeVerdict)]


@given(st.floats(10.0 / MAX_RATE_FACTOR * 1.6, 10.0 * MAX_RATE_FACTOR / 1.6), st.sampled_from([LOAD, SHORT]))
def test_the_rate_is_found_to_within_the_resolution(true_qps: float, load: Load) -> None:
    result, verdicts = run_search(true_qps, load)
    assert result.verified_qps is not None
    assert result.verified_qps <= true_qps
    assert true_qps / result.verified_qps <= 1 + 2.5 * load.resolution
    assert result.verified_qps <= result.capacity_qps
    full = [verdict for verdict in verdicts if verdict.plan.queries is None]
    assert (ProbePlan(result.verified_qps, None), True) in [(one.plan, one.slo_met) for one in full]
    if load is LOAD:
        assert len(full) <= MAX_FULL_RUNS
    assert not result.stopped_early


def test_full_runs_follow_short_probes_that_are_much_shorter() -> None:
    _, verdicts = run_search(13.0)
    kinds = [verdict.plan.queries is None for verdict in verdicts]
    assert kinds == sorted(kinds)
    assert kinds[0] is False
    _, alike = run_search(13.0, SHORT)
    assert all(verdict.plan.queries is None for verdict in alike)


def test_a_deployment_that_never_holds_has_no_verified_rate() -> None:
    result, verdicts = run_search(0.0)
    assert (result.verified_qps, result.capacity_qps) == (None, 0.0)
    assert min(verdict.plan.target_qps for verdict in verdicts) >= 10.0 / MAX_RATE_FACTOR


@pytest.mark.parametrize(("true_qps", "verified"), [(11.0, 10.0), (9.0, None)])
def test_a_range_of_one_rate_is_one_full_run(true_qps: float, verified: float | None) -> None:
    load = LOAD.model_copy(update={"rate_range_qps": (10.0, 10.0)})
    result, verdicts = run_search(true_qps, load)
    assert [verdict.plan for verdict in verdicts] == [ProbePlan(10.0, None)]
    assert result.verified_qps == verified


def test_a_deployment_clearly_below_the_rate_to_beat_is_stopped_early() -> None:
    result, verdicts = run_search(5.0, early_stop_qps=12.0)
    assert result.stopped_early
    assert verdicts[0].plan.target_qps == pytest.approx(12.0 * (1 + LOAD.resolution), rel=0.01)
    assert len(verdicts) == 2
    assert not run_search(13.0, early_stop_qps=12.0)[0].stopped_early


def test_an_invalid_probe_is_repeated_once_and_then_ends_the_search() -> None:
    asked: list[ProbePlan] = []

    def measure(plan: ProbePlan) -> tuple[RequestLog, bool | None]:
        asked.append(plan)
        return NO_LOG, None if len(asked) > 2 else plan.target_qps < 12

    *_, result = bisect_capacity(LOAD, measure)
    assert isinstance(result, CapacityResult)
    assert asked[2] == asked[3]
    assert len(asked) == 4
    assert result.verified_qps is None
