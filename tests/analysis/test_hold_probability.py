"""Test the probability that a trial holds its SLO in a further shuffle, and the constraint of the search."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.outcomes import measured, probe
from support.probes import percentiles, spread
from support.request_logs import spec

from tune.analysis.hold_probability import hold_probability, judged_constraint
from tune.analysis.judge import TrialFacts, judge
from tune.analysis.ranking import rank
from tune.records.outcome import LoadGenSpread, Outcome
from tune.spec.metrics import TTFT_P99


def verdicts(held: int, shuffles: int) -> LoadGenSpread:
    return LoadGenSpread(shuffles=shuffles, slo_met=held, ttft_p99_s=None, tpot_p99_s=None)


def trial(
    held: int, tps: float = 9000.0, number: int = 0, *, mode: str = "fixed", own: bool = True
) -> Outcome:
    base = spec()
    load = base.load.model_copy(update={"mode": mode})
    run = probe(tps=tps, feasible=own).model_copy(update={"spread": spread(held, 4.4)})
    outcome = judge(base.model_copy(update={"load": load}), [run], TrialFacts(number, "tpe"))
    return outcome.model_copy(update={"trial_id": f"t{number}"})


def test_five_of_five_leave_a_doubt() -> None:
    found = hold_probability(verdicts(5, 5))
    assert found.estimate == pytest.approx(11 / 12)
    assert found.low == pytest.approx(0.694, abs=0.001), "quantile of the beta distribution with 5.5 and 0.5"
    assert found.high == 1.0


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_estimate_and_narrows_with_more_shuffles(counts: tuple[int, int]) -> None:
    held, shuffles = counts
    once, thrice = (
        hold_probability(verdicts(held, shuffles)),
        hold_probability(verdicts(3 * held, 3 * shuffles)),
    )
    assert 0.0 <= once.low <= once.estimate <= once.high <= 1.0
    assert thrice.high - thrice.low <= once.high - once.low + 1e-9


def test_a_trial_that_breaks_in_one_shuffle_is_not_feasible_at_a_fixed_rate() -> None:
    assert trial(5).feasible
    lucky = trial(4)
    assert not lucky.feasible
    assert lucky.reason == "the SLO holds in 4 of 5 shuffles; expected all of them"
    assert (lucky.capacity_qps.low, lucky.capacity_qps.high) == (None, lucky.target_qps)
    assert lucky.bottleneck
    assert lucky.bottleneck.recommendations[-1].text == "a lower rate"
    assert lucky.probes[0].feasible, "its own run held, and stays on record"
    assert trial(4, mode="capacity").feasible, "a capacity search is judged by the runs it made"


def test_a_lucky_winner_does_not_rank_before_one_that_holds_in_all_shuffles() -> None:
    rows = rank([trial(2, 9100.0, 0), trial(5, 9000.0, 1)])
    assert [(row["number"], row["slo_met_shuffles"]) for row in rows] == [(1, 5), (0, 2)]
    assert rows[1]["hold_probability"] == pytest.approx(2.5 / 6)


def test_the_search_observes_the_worst_shuffle_of_a_trial_that_is_not_feasible() -> None:
    outcome = trial(3)
    assert outcome.spread
    assert outcome.spread.ttft_p99_s
    own_s = percentiles(0.5).p99 if outcome.ttft_s is None else outcome.ttft_s.p99
    expected = -0.1 + math.log(outcome.spread.ttft_p99_s.max / own_s)
    assert judged_constraint(outcome, [TTFT_P99]) == pytest.approx(max(expected, -0.1))
    assert judged_constraint(trial(5), [TTFT_P99]) == pytest.approx(-0.1)
    assert judged_constraint(measured(ttft=-0.1, tpot=0.2)) == pytest.approx(0.2)
