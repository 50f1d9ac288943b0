"""Stop a run exactly where its whole record would, and never before."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.right_client import make_settings

from tune.capacity.futility import find_futility
from tune.client.futility_monitor import FutilityMonitor
from tune.client.request_tracker import RequestTracker
from tune.client.schedule import draw_schedule
from tune.spec.load import Slo

SCHEDULE = draw_schedule(make_settings(load__min_queries=1000, load__min_duration_s=5.0))
SLO = Slo(ttft_p99_s=0.4, tpot_p99_s=0.2)
START_NS = 7_000_000


def issue_all() -> RequestTracker:
    tracker = RequestTracker(SCHEDULE)
    for arrival_ns in SCHEDULE.arrival_ns.tolist():
        tracker.note_issue(START_NS + arrival_ns)
    return tracker


def end(tracker: RequestTracker, query: int, fate: str) -> None:
    """Finish a query: "quick", late by "ttft" or "tpot", or with an "error" after its first token."""
    response, arrival_ns = tracker.responses[query], int(SCHEDULE.arrival_ns[query])
    response.first_token_ns = START_NS + arrival_ns + (500_000_000 if fate == "ttft" else 1_000_000)
    if fate == "error":
        response.fail("cut")
    else:
        response.output_tokens = 5
        response.done_ns = response.first_token_ns + (1_000_000_000 if fate == "tpot" else 100_000)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    late_frac=st.sampled_from([0.0, 0.005, 0.02, 0.1]),
    reads=st.integers(1, 20),
    spread=st.integers(1, 400),
)
def test_monitor_stops_exactly_where_the_whole_record_does(
    seed: int, late_frac: float, reads: int, spread: int
) -> None:
    random, tracker = np.random.default_rng(seed), issue_all()
    monitor, queries = FutilityMonitor(tracker, SLO), len(SCHEDULE)
    fates = random.choice(
        ["quick", "ttft", "tpot", "error"], queries, p=[1 - late_frac, *[late_frac / 3] * 3]
    )
    finish_order = np.argsort(np.arange(queries) + random.uniform(0, spread, queries))
    futilities = []
    for part in np.array_split(finish_order, reads):
        for query in part.tolist():
            end(tracker, query, fates[query])
        futilities.append(monitor.futility())
    whole = find_futility(tracker.to_log(), SLO, queries)
    assert futilities[-1] == whole
    assert set(futilities) <= {None, whole}


def test_requests_after_one_in_flight_do_not_count() -> None:
    tracker = issue_all()
    monitor = FutilityMonitor(tracker, SLO)
    for query in range(1, len(SCHEDULE)):
        end(tracker, query, "ttft")
    assert monitor.futility() is None
    end(tracker, 0, "quick")
    futility = monitor.futility()
    assert futility is not None
    assert futility.queries == 459
