"""Test a capacity search in words: rates, cost, probes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.request_logs import make_log
from support.synthetic_search import five_probes, probe_at, searched_trial
from support.synthetic_study import SLO, study, synthetic_trial, unmeasured

from tune.analysis.validity import invalid_reason
from tune.loadgen.latencies import answered, latencies
from tune.records.attempt_record import Phases
from tune.records.outcome import CapacityQps, Outcome, Probe
from tune.report.capacity_text import (
    describe_capacity,
    describe_cost,
    full_run_equivalents,
    is_capacity_search,
    probe_status,
    summarise_probes,
)
from tune.report.terminal import render_outcome

RATES = st.floats(0.5, 40.0)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (searched_trial(), "16.05 QPS verified, 16.3 QPS missed, estimated capacity 16.2 QPS"),
        (
            searched_trial(probes=(probe_at(15.46, 3.7),), rates=(15.46, None, 15.67)),
            "15.46 QPS verified, no full run above it missed, estimated capacity 15.67 QPS",
        ),
        (
            searched_trial(probes=(probe_at(15.0, 9.0), probe_at(14.1, 5.04)), rates=(None, 14.1, 13.1)),
            "no rate held the SLO: the lowest rate tried, 14.1 QPS (full run), exceeded the p99 TTFT limit "
            "by 12.0 %, estimated capacity 13.1 QPS",
        ),
        (
            searched_trial(probes=(probe_at(15.75, 1004.0, 0.088, full=False),), rates=(None, None, 0.0)),
            "no rate held the SLO: the lowest rate tried, 15.75 QPS (short run), reached 223 times the p99 "
            "TTFT limit and exceeded the p99 TPOT limit by 10.0 %, and no rate is expected to hold it",
        ),
        (
            searched_trial(
                probes=(
                    probe_at(14.1, 4.4, feasible=False, reason="9 of 1200 requests over the TTFT limit"),
                ),
                rates=(None, 14.1, 13.9),
            ),
            "no rate held the SLO: the lowest rate tried, 14.1 QPS (full run), did not hold: 9 of 1200 "
            "requests over the TTFT limit, estimated capacity 13.9 QPS",
        ),
        (
            searched_trial(probes=(probe_at(14.1, 5.4, stopped=True),), rates=(None, 14.1, 13.1)),
            "no rate held the SLO: the lowest rate tried, 14.1 QPS (full run), exceeded the p99 TTFT limit "
            "by 20.0 % when the run was aborted, estimated capacity 13.1 QPS",
        ),
        (
            searched_trial(
                capacity_qps=CapacityQps(
                    low=16.05, high=16.3, stopped_early=False, estimate=16.2, prefill=18.33, decode=16.51
                ),
            ),
            "16.05 QPS verified, 16.3 QPS missed, estimated capacity 16.2 QPS (pool capacity: prefill "
            "18.33 QPS, decode 16.51 QPS)",
        ),
        (
            searched_trial(
                capacity_qps=CapacityQps(
                    low=28.4, high=None, stopped_early=False, estimate=28.8, range=(6.0, 26.0)
                ),
            ),
            "28.4 QPS verified, no full run above it missed, estimated capacity 28.8 QPS; above the range 6 "
            "to 26 QPS in which the search began",
        ),
        (
            searched_trial(
                capacity_qps=CapacityQps(
                    low=26.0, high=None, stopped_early=False, estimate=26.0, range=(6.0, 26.0)
                ),
            ),
            "26 QPS verified, no full run above it missed, estimated capacity 26 QPS",
        ),
        (
            searched_trial(
                capacity_qps=CapacityQps(
                    low=None, high=None, stopped_early=True, estimate=9.0, early_stop=16.0
                ),
                reason="stopped early: 9 queries/s expected at most, 16 to beat",
            ),
            "stopped early: 9 queries/s expected at most, 16 to beat",
        ),
    ],
)
def test_capacity_names_verified_missed_and_estimated_rates(outcome: Outcome, text: str) -> None:
    assert describe_capacity(outcome) == text


def test_lowest_missed_rate_is_that_of_a_full_run() -> None:
    outcome = searched_trial(
        probes=(probe_at(9.0, 5.0, full=False), probe_at(14.1, 5.4)), rates=(None, 14.1, 8.0)
    )
    assert "the lowest rate tried, 14.1 QPS (full run)" in describe_capacity(outcome)


def test_cost_counts_probes_full_runs_arrivals_and_gpu_hours() -> None:
    completed = searched_trial(probes=(probe_at(10.0, 3.0, full=False), probe_at(16.0, 4.0)), gpu_hours=49.08)
    assert describe_cost(completed) == ("2 probes lasting 1.1 full runs, 1,159 s of arrivals, 49.1 GPU-hours")
    aborted = searched_trial(probes=(probe_at(16.0, 6.0, stopped=True, queries=3200),))
    assert describe_cost(aborted) == "1 probe, 200 s of arrivals, 49.2 GPU-hours"


def test_cost_shows_phases_if_attempts_record_them() -> None:
    phases = Phases(bring_up_s=1200.0, probes_s=1101.4, drain_s=50.2, search_s=0.2)
    (attempt,) = searched_trial().attempts
    recorded, unrecorded = attempt.model_copy(update={"phases": phases}), attempt
    assert describe_cost(searched_trial(attempts=(unrecorded, recorded))) == (
        "5 probes lasting 2.4 full runs, 1,101 s of probes, 50 s of draining, 1,200 s of bring-up, 49.2 "
        "GPU-hours"
    )
    twice = describe_cost(searched_trial(attempts=(recorded, recorded)))
    assert "2,203 s of probes, 100 s of draining, 2,400 s of bring-up" in twice


@given(st.lists(st.builds(probe_at, RATES, RATES, full=st.booleans(), stopped=st.booleans()), min_size=1))
def test_search_with_completed_full_run_lasts_one_full_run_at_least(probes: list[Probe]) -> None:
    runs = full_run_equivalents(searched_trial(probes=tuple(probes)))
    completed = any(probe.full and not probe.stopped for probe in probes)
    assert (runs is not None) == completed
    assert runs is None or runs >= 1


def test_probe_status_is_validity_first_then_abortion() -> None:
    assert [probe_status(probe) for probe in five_probes()] == [
        "missed",
        "held",
        "aborted",
        "missed",
        "held",
    ]
    assert probe_status(probe_at(16.0, 4.0, valid=False, stopped=True)) == "invalid"


@pytest.mark.parametrize(("full", "status"), [(False, "too short"), (True, "invalid")])
def test_a_short_run_that_could_not_fill_the_rack_is_not_called_invalid(full: bool, status: str) -> None:
    log = make_log(1000)
    slow = replace(log, done_ns=log.done_ns + int(log.scheduled_ns[-1]))
    good = answered(slow)
    invalid = invalid_reason(slow, good, latencies(slow, good), 15.75, late=False)
    assert invalid
    assert probe_status(probe_at(16.0, 1.0, full=full, valid=False, reason=invalid.reason)) == status


def test_trial_at_one_rate_is_no_capacity_search() -> None:
    assert not is_capacity_search(synthetic_trial(0))
    assert not is_capacity_search(unmeasured(0, "failed", "gb07 went down"))
    assert is_capacity_search(searched_trial())
    assert is_capacity_search(
        searched_trial(probes=(probe_at(15.75, 9.0, full=False),), rates=(None, None, 0.0))
    )


def test_probes_are_counted_by_length_and_status() -> None:
    text = summarise_probes([searched_trial(0), searched_trial(1), unmeasured(2, "failed", "gb07 went down")])
    assert text == (
        "10 probes on 2 deployments, 1.39 h of arrivals; full runs: 2 held, 2 missed, 2 aborted; short runs: "
        "2 held, 2 missed"
    )


def test_terminal_shows_capacity_cost_and_a_line_per_probe() -> None:
    lines = render_outcome(searched_trial(), SLO, study()).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("capacity"))
    assert lines[start : start + 7] == [
        "capacity  16.05 QPS verified, 16.3 QPS missed, estimated capacity 16.2 QPS",
        "          5 probes lasting 2.4 full runs, 2,509 s of arrivals, 49.2 GPU-hours",
        "probe 1      18 QPS  short run  missed     p99 TTFT   9.40 s  p99 TPOT  59.0 ms  1,200 queries",
        "probe 2    16.4 QPS  short run  held       p99 TTFT   3.30 s  p99 TPOT  59.0 ms  1,200 queries",
        "probe 3    16.6 QPS  full run   aborted    p99 TTFT   7.90 s  p99 TPOT  59.0 ms  5,200 queries",
        "probe 4    16.3 QPS  full run   missed     p99 TTFT   4.62 s  p99 TPOT  59.0 ms  16,626 queries",
        "probe 5   16.05 QPS  full run   held       p99 TTFT   4.31 s  p99 TPOT  59.0 ms  16,626 queries",
    ]
    assert "probe 1" not in render_outcome(synthetic_trial(0), SLO, study())
