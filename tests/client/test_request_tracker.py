import numpy as np
import pytest
from support.right_client import make_settings

from tune.client.request_tracker import RequestTracker
from tune.client.schedule import draw_schedule
from tune.client.sse_response import StreamedResponse
from tune.loadgen.latencies import answered
from tune.loadgen.run_settings import LIFTED_LIMIT_NS

SCHEDULE = draw_schedule(make_settings())
START_NS, DELAYS_NS = 5_000_000, (900, 300, 4000, 700)


def four_issued() -> RequestTracker:
    """An answered one, one that failed after its first token, one in flight, one not begun."""
    ledger = RequestTracker(SCHEDULE)
    for position, delay in enumerate(DELAYS_NS):
        assert ledger.note_issue(START_NS + int(SCHEDULE.arrival_ns[position]) + delay) == position
    at = ledger.schedule.arrival_ns + START_NS + 300
    ledger.answers[0] = StreamedResponse(int(at[0]) + 10_000, int(at[0]) + 50_000, output_tokens=9)
    ledger.answers[1] = StreamedResponse(first_token_ns=int(at[1]) + 20_000, error="cut: half")
    ledger.answers[2] = StreamedResponse(first_token_ns=int(at[2]) + 30_000)
    return ledger


def test_the_least_delayed_query_tells_the_start() -> None:
    ledger = four_issued()
    assert ledger.start_ns == START_NS + 300
    assert ledger.issue_delay_ns().tolist() == [600, 0, 3700, 400]


def test_the_record_holds_what_was_issued() -> None:
    log = four_issued().to_log()
    assert len(log) == 4
    assert (log.scheduled_ns == SCHEDULE.arrival_ns[:4]).all()
    assert (log.input_tokens == SCHEDULE.input_tokens[:4]).all()
    assert (log.first_token_ns - log.scheduled_ns)[:3].tolist() == [10_000, 20_000, 30_000]
    assert log.first_token_ns[3] == -1
    assert (log.done_ns - log.scheduled_ns)[0] == 50_000
    assert log.done_ns[1:].tolist() == [-1, -1, -1]
    assert log.output_tokens.tolist() == [9, 0, 0, 0]
    assert log.error.tolist() == ["", "cut: half", "interrupted", "interrupted"]
    assert answered(log).tolist() == [True, False, False, False]
    assert (log.prefill_worker == -1).all()
    assert (log.decode_worker == -1).all()


def test_nothing_issued_is_an_empty_record() -> None:
    ledger = RequestTracker(SCHEDULE)
    assert len(ledger.to_log()) == 0
    assert ledger.start_ns == 0


@pytest.mark.parametrize(
    ("limit_ns", "late"), [(9_999, 4), (10_000, 3), (25_000, 2), (10**9, 1), (LIFTED_LIMIT_NS, 0)]
)
def test_progress_counts(limit_ns: int, late: int) -> None:
    ledger = four_issued()
    much_later = START_NS + int(SCHEDULE.arrival_ns[3]) + 2 * 10**9
    progress = ledger.progress(much_later, limit_ns)
    assert (progress.issued, progress.answered, progress.in_flight, progress.errors) == (4, 1, 2, 1)
    assert progress.late == late


def test_more_queries_than_scheduled_do_not_fit() -> None:
    ledger = RequestTracker(SCHEDULE)
    for _ in range(len(SCHEDULE)):
        ledger.note_issue(1)
    with pytest.raises(IndexError):
        ledger.note_issue(1)
    assert np.array_equal(ledger.to_log().scheduled_ns, SCHEDULE.arrival_ns)
