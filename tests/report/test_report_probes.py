from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_search import asked, five_probes, searched
from support.synthetic_study import SLO, measured, study, unmeasured

from tune.records.attempt_record import Phases
from tune.records.outcome import CapacityQps, Outcome, Probe
from tune.report.capacity_text import bracket, came_to, cost, full_runs, probes_in_all
from tune.report.capacity_text import searched as was_searched
from tune.report.terminal import render_outcome

RATES = st.floats(0.5, 40.0)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (searched(), "16.05 QPS held, 16.3 missed, boundary 16.2"),
        (
            searched(probes=(asked(15.46, 3.7),), bracket=(15.46, None, 15.67)),
            "15.46 QPS held, none above it missed at full length, boundary 15.67",
        ),
        (
            searched(probes=(asked(15.0, 9.0), asked(14.1, 5.04)), bracket=(None, 14.1, 13.1)),
            "no rate held: the lowest, 14.1 QPS (full length), missed p99 TTFT by 12.0 %, boundary 13.1",
        ),
        (
            searched(probes=(asked(15.75, 1004.0, 0.088, full=False),), bracket=(None, None, 0.0)),
            "no rate held: the lowest, 15.75 QPS (short probe), missed p99 TTFT with 223 times its limit and "
            "p99 TPOT by 10.0 %, and no rate is expected to hold",
        ),
        (
            searched(
                probes=(asked(14.1, 4.4, feasible=False, reason="9 of 1200 requests over the TTFT limit"),),
                bracket=(None, 14.1, 13.9),
            ),
            "no rate held: the lowest, 14.1 QPS (full length), missed: 9 of 1200 requests over the TTFT "
            "limit, boundary 13.9",
        ),
        (
            searched(probes=(asked(14.1, 5.4, stopped=True),), bracket=(None, 14.1, 13.1)),
            "no rate held: the lowest, 14.1 QPS (full length), missed p99 TTFT by 20.0 % when it was "
            "stopped, boundary 13.1",
        ),
        (
            searched(
                capacity_qps=CapacityQps(
                    low=16.05, high=16.3, censored=False, estimate=16.2, prefill=18.33, decode=16.51
                ),
            ),
            "16.05 QPS held, 16.3 missed, boundary 16.2 (prefill alone 18.33, decode alone 16.51)",
        ),
        (
            searched(
                capacity_qps=CapacityQps(low=None, high=None, censored=True, estimate=9.0, early_stop=16.0),
                reason="given up: 9 queries/s expected at most, 16 to beat",
            ),
            "given up: 9 queries/s expected at most, 16 to beat",
        ),
    ],
)
def test_the_bracket_names_what_held_what_missed_and_the_boundary(outcome: Outcome, text: str) -> None:
    assert bracket(outcome) == text


def test_a_short_probe_below_the_runs_of_full_length_is_not_the_lowest_that_missed() -> None:
    outcome = searched(probes=(asked(9.0, 5.0, full=False), asked(14.1, 5.4)), bracket=(None, 14.1, 8.0))
    assert "the lowest, 14.1 QPS (full length)" in bracket(outcome)


def test_the_cost_counts_probes_runs_of_full_length_arrivals_and_gpu_hours() -> None:
    one = searched(probes=(asked(10.0, 3.0, full=False), asked(16.0, 4.0)), gpu_hours=49.08)
    assert cost(one) == "2 probes, 1.1 full runs, 1,159 s of arrivals, 49.1 GPU-hours"
    stopped = searched(probes=(asked(16.0, 6.0, stopped=True, queries=3200),))
    assert cost(stopped) == "1 probe, 200 s of arrivals, 49.2 GPU-hours"


def test_the_cost_tells_the_phases_where_attempts_know_them() -> None:
    phases = Phases(bring_up_s=1200.0, probes_s=1101.4, drain_s=50.2, search_s=0.2)
    (attempt,) = searched().attempts
    known, lost = attempt.model_copy(update={"phases": phases}), attempt
    assert cost(searched(attempts=(lost, known))) == (
        "5 probes, 2.4 full runs, 1,101 s in probes, 50 s draining, 1,200 s bringing up, 49.2 GPU-hours"
    )
    twice = cost(searched(attempts=(known, known)))
    assert "2,203 s in probes, 100 s draining, 2,400 s bringing up" in twice


@given(st.lists(st.builds(asked, RATES, RATES, full=st.booleans(), stopped=st.booleans()), min_size=1))
def test_a_search_with_a_whole_run_costs_a_whole_run_at_least(probes: list[Probe]) -> None:
    runs = full_runs(searched(probes=tuple(probes)))
    whole = any(probe.full and not probe.stopped for probe in probes)
    assert (runs is not None) == whole
    assert runs is None or runs >= 1


def test_what_a_probe_came_to_is_trust_first_then_whether_it_ended() -> None:
    assert [came_to(probe) for probe in five_probes()] == [
        "missed",
        "held",
        "stopped early",
        "missed",
        "held",
    ]
    assert came_to(asked(16.0, 4.0, valid=False, stopped=True)) == "not trusted"


def test_one_rate_asked_is_no_search() -> None:
    assert not was_searched(measured(0))
    assert not was_searched(unmeasured(0, "failed", "gb07 went down"))
    assert was_searched(searched())
    assert was_searched(searched(probes=(asked(15.75, 9.0, full=False),), bracket=(None, None, 0.0)))


def test_the_probes_of_a_study_are_counted_by_length_and_verdict() -> None:
    told = probes_in_all([searched(0), searched(1), unmeasured(2, "failed", "gb07 went down")])
    assert told == (
        "10 probes on 2 deployments, 1.39 h of arrivals; of full length: 2 held, 2 missed, 2 stopped early; "
        "short: 2 held, 2 missed"
    )


def test_the_text_of_a_search_has_its_bracket_its_cost_and_a_line_a_probe() -> None:
    lines = render_outcome(searched(), SLO, study()).splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("capacity"))
    assert lines[at : at + 7] == [
        "capacity  16.05 QPS held, 16.3 missed, boundary 16.2",
        "          5 probes, 2.4 full runs, 2,509 s of arrivals, 49.2 GPU-hours",
        "probe 1      18 QPS  short probe  missed         p99 TTFT   9.40 s  TPOT  59.0 ms  1,200 queries",
        "probe 2    16.4 QPS  short probe  held           p99 TTFT   3.30 s  TPOT  59.0 ms  1,200 queries",
        "probe 3    16.6 QPS  full length  stopped early  p99 TTFT   7.90 s  TPOT  59.0 ms  5,200 queries",
        "probe 4    16.3 QPS  full length  missed         p99 TTFT   4.62 s  TPOT  59.0 ms  16,626 queries",
        "probe 5   16.05 QPS  full length  held           p99 TTFT   4.31 s  TPOT  59.0 ms  16,626 queries",
    ]
    assert "probe 1" not in render_outcome(measured(0), SLO, study())
