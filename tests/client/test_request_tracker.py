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
    """Return a tracker of four queries: answered, failed after its first token, in flight, not begun."""
    tracker = RequestTracker(SCHEDULE)
    for position, delay in enumerate(DELAYS_NS):
        assert tracker.note_issue(START_NS + int(SCHEDULE.arrival_ns[position]) + delay) == position
    due_ns = tracker.schedule.arrival_ns + START_NS + 300
    tracker.responses[0] = StreamedResponse(int(due_ns[0]) + 10_000, int(due_ns[0]) + 50_000, output_tokens=9)
    tracker.responses[1] = StreamedResponse(first_token_ns=int(due_ns[1]) + 20_000, error="cut: half")
    tracker.responses[2] = StreamedResponse(first_token_ns=int(due_ns[2]) + 30_000)
    return tracker


def test_least_delayed_query_gives_the_start() -> None:
    tracker = four_issued()
    assert tracker.start_ns == START_NS + 300
    assert tracker.issue_delay_ns().tolist() == [600, 0, 3700, 400]


def test_record_holds_the_issued_queries() -> None:
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


def test_tracker_without_queries_gives_an_empty_record() -> None:
    tracker = RequestTracker(SCHEDULE)
    assert len(tracker.to_log()) == 0
    assert tracker.start_ns == 0


@pytest.mark.parametrize(
    ("limit_ns", "late"), [(9_999, 4), (10_000, 3), (25_000, 2), (10**9, 1), (LIFTED_LIMIT_NS, 0)]
)
def test_progress_counts_queries_by_state(limit_ns: int, late: int) -> None:
    tracker = four_issued()
    much_later = START_NS + int(SCHEDULE.arrival_ns[3]) + 2 * 10**9
    progress = tracker.progress(much_later, limit_ns)
    assert (progress.issued, progress.answered, progress.in_flight, progress.errors) == (4, 1, 2, 1)
    assert progress.late == late


def test_tracker_refuses_more_queries_than_scheduled() -> None:
    tracker = RequestTracker(SCHEDULE)
    for _ in range(len(SCHEDULE)):
        tracker.note_issue(1)
    with pytest.raises(IndexError):
        tracker.note_issue(1)
    assert np.array_equal(tracker.to_log().scheduled_ns, SCHEDULE.arrival_ns)
