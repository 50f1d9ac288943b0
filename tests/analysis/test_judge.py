import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.outcomes import ATTEMPT, facts, failed, infeasible, probe
from support.request_logs import spec

from tune.analysis.judge import judge
from tune.records.capacity_search import CapacityRecord, EarlyStopThreshold
from tune.records.outcome import CapacityQps

FIGURES = (
    "output_tps_per_gpu",
    "output_tps",
    "loadgen_tps",
    "completed_qps",
    "ttft_s",
    "tpot_s",
    "latency_s",
    "breakdown",
)


def found(capacity_qps: float) -> CapacityRecord:
    rates = {"capacity_qps": capacity_qps, "prefill_capacity_qps": 18.0, "decode_capacity_qps": 9.1}
    return CapacityRecord(verified_qps=None, missed_qps=None, fitted={}, **rates)


def test_outcome_of_one_probe_has_its_figures():
    only = probe()
    outcome = judge(spec(), [only], facts(3))
    assert (outcome.status, outcome.valid, outcome.feasible, outcome.reason) == ("measured", True, True, None)
    assert (outcome.trial_id, outcome.number, outcome.gpus) == (spec().trial_id, 3, 72)
    for name in (*FIGURES, "target_qps", "constraints"):
        assert getattr(outcome, name) == getattr(only, name)
    assert outcome.probes == (only,)
    assert outcome.capacity_qps == CapacityQps(low=15.75, high=None, stopped_early=False)


def test_a_missed_slo_is_measured_with_its_reason():
    outcome = judge(spec(), [probe(feasible=False, ttft=0.2, reason="400 of 8313 late")], facts())
    assert (outcome.status, outcome.valid, outcome.feasible) == ("measured", True, False)
    assert outcome.reason == "400 of 8313 late"
    assert outcome.capacity_qps == CapacityQps(low=None, high=15.75, stopped_early=False)


def test_figures_are_those_of_the_best_feasible_probe():
    probes = [
        probe(14, 8000),
        probe(16, 9000),
        probe(18, 9500, feasible=False),
        probe(17, 9300, feasible=False),
    ]
    outcome = judge(spec(), probes, facts())
    assert (outcome.target_qps, outcome.output_tps, outcome.feasible) == (16, 9000, True)
    assert outcome.capacity_qps == CapacityQps(low=16, high=17, stopped_early=False)
    assert outcome.probes == tuple(probes)


def test_figures_are_of_the_lowest_rate_when_none_is_feasible():
    probes = [probe(18, 9500, feasible=False), probe(14, 8000, feasible=False)]
    outcome = judge(spec(), probes, facts())
    assert (outcome.target_qps, outcome.output_tps, outcome.feasible) == (14, 8000, False)
    assert outcome.capacity_qps == CapacityQps(low=None, high=14, stopped_early=False)


def test_early_stopped_deployment_is_measured_with_its_threshold():
    short = probe(16.2, 8000, feasible=False).model_copy(update={"full": False})
    outcome = judge(
        spec(), [short], facts(), search=found(9.0), early_stop=EarlyStopThreshold(early_stop_qps=16.0)
    )
    assert outcome.status == "measured"
    assert outcome.capacity_qps == CapacityQps(
        low=None, high=None, stopped_early=True, estimate=9.0, prefill=18.0, decode=9.1, early_stop=16.0
    )
    assert outcome.reason == "stopped early: 9 queries/s expected at most, 16 to beat"
    others = judge(
        spec(),
        [short],
        facts(),
        search=found(9.0),
        early_stop=EarlyStopThreshold(early_stop_qps=16.0, expected=True),
    )
    assert others.reason == "stopped early: 9 queries/s expected at most, 16 expected of others"


def test_invalid_probe_bounds_nothing():
    outcome = judge(spec(), [probe(14), probe(15, valid=False)], facts())
    assert outcome.capacity_qps == CapacityQps(low=14, high=None, stopped_early=False)
    outcome = judge(spec(), [probe(15, valid=False, reason="3 requests")], facts())
    assert (outcome.valid, outcome.feasible, outcome.reason) == (False, False, "3 requests")
    assert outcome.capacity_qps == CapacityQps(low=None, high=None, stopped_early=False)


def test_miss_below_a_verified_rate_is_noise():
    outcome = judge(spec(), [probe(14, feasible=False), probe(15), probe(17, feasible=False)], facts())
    assert outcome.capacity_qps == CapacityQps(low=15, high=17, stopped_early=False)


@given(
    st.lists(st.tuples(st.sampled_from([12.0, 13.0, 14.0, 15.0]), st.booleans(), st.booleans()), min_size=1)
)
def test_capacity_low_is_never_above_high(drawn):
    probes = [probe(qps, 600 * qps, feasible=feasible, valid=valid) for qps, feasible, valid in drawn]
    outcome = judge(spec(), probes, facts())
    low, high = outcome.capacity_qps.low, outcome.capacity_qps.high
    assert low is None or high is None or low < high
    assert outcome.feasible == any(p.feasible for p in probes) == (low is not None)


def test_short_run_alone_is_not_feasible():
    short = probe(qps=18.0, tps=11000.0).model_copy(update={"full": False})
    outcome = judge(spec(), [short, probe(qps=15.5, tps=9700.0)], facts(), search=found(15.7))
    assert (outcome.target_qps, outcome.feasible) == (15.5, True)
    assert outcome.capacity_qps == CapacityQps(
        low=15.5, high=None, stopped_early=False, estimate=15.7, prefill=18.0, decode=9.1
    )
    outcome = judge(spec(), [short], facts())
    assert (outcome.target_qps, outcome.feasible, outcome.capacity_qps.low) == (18.0, False, None)
    missed = judge(spec(), [short, probe(qps=15.5, feasible=False)], facts())
    assert (missed.target_qps, missed.feasible) == (15.5, False)


def test_judging_without_probes_raises():
    with pytest.raises(ValueError, match="has no probe; a measured trial has at least one"):
        judge(spec(), [], facts())


@pytest.mark.parametrize(("outcome", "status"), [(infeasible(4), "infeasible"), (failed(4), "failed")])
def test_unmeasured_outcome_has_no_figures(outcome, status):
    assert (outcome.status, outcome.number, outcome.valid, outcome.feasible) == (status, 4, False, False)
    assert outcome.reason
    assert {getattr(outcome, name) for name in FIGURES} == {None}
    assert outcome.probes == ()
    assert outcome.target_qps == spec().load.target_qps
    assert (outcome.constraints.ttft_p99, outcome.constraints.tpot_p99) == (None, None)
    assert outcome.capacity_qps == CapacityQps(low=None, high=None, stopped_early=False)


def test_cost_sums_all_attempts():
    lost = ATTEMPT.model_copy(update={"class_": "failed", "gpu_hours": 4.0})
    outcome = judge(spec(), [probe()], facts(attempts=(lost, ATTEMPT)))
    assert (outcome.gpu_hours, outcome.wall_s) == (40.0, 3600.0)
    assert [attempt.class_ for attempt in outcome.attempts] == ["failed", "measured"]
