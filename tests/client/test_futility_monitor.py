"""A run is given up on exactly what the whole record would say, and never before that is over."""

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


def issued() -> RequestTracker:
    ledger = RequestTracker(SCHEDULE)
    for arrival_ns in SCHEDULE.arrival_ns.tolist():
        ledger.note_issue(START_NS + arrival_ns)
    return ledger


def end(ledger: RequestTracker, query: int, fate: str) -> None:
    """ "quick", late by "ttft" or "tpot", or an "error" after the first token."""
    answer, arrival_ns = ledger.answers[query], int(SCHEDULE.arrival_ns[query])
    answer.first_token_ns = START_NS + arrival_ns + (500_000_000 if fate == "ttft" else 1_000_000)
    if fate == "error":
        answer.fail("cut")
    else:
        answer.output_tokens = 5
        answer.done_ns = answer.first_token_ns + (1_000_000_000 if fate == "tpot" else 100_000)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    late_frac=st.sampled_from([0.0, 0.005, 0.02, 0.1]),
    looks=st.integers(1, 20),
    spread=st.integers(1, 400),
)
def test_a_run_is_given_up_on_what_the_whole_record_says(
    seed: int, late_frac: float, looks: int, spread: int
) -> None:
    random, ledger = np.random.default_rng(seed), issued()
    outlook, queries = FutilityMonitor(ledger, SLO), len(SCHEDULE)
    fates = random.choice(
        ["quick", "ttft", "tpot", "error"], queries, p=[1 - late_frac, *[late_frac / 3] * 3]
    )
    order = np.argsort(np.arange(queries) + random.uniform(0, spread, queries))
    found = []
    for part in np.array_split(order, looks):
        for query in part.tolist():
            end(ledger, query, fates[query])
        found.append(outlook.hopeless())
    whole = find_futility(ledger.to_log(), SLO, queries)
    assert found[-1] == whole
    assert set(found) <= {None, whole}


def test_what_is_over_after_a_request_in_flight_does_not_count() -> None:
    ledger = issued()
    outlook = FutilityMonitor(ledger, SLO)
    for query in range(1, len(SCHEDULE)):
        end(ledger, query, "ttft")
    assert outlook.hopeless() is None
    end(ledger, 0, "quick")
    found = outlook.hopeless()
    assert found is not None
    assert found.queries == 459
