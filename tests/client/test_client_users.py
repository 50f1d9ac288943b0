"""Test that the client sends in a closed loop: no more queries in flight than users, and a record of all."""

from __future__ import annotations

import threading
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from support.client_runs import run
from support.right_client import make_settings
from support.streaming_server import StreamingServer

from tune.client.request_tracker import RequestTracker
from tune.client.schedule import NOT_SENT, draw_schedule
from tune.client.user_loop import UserLoop

USERS = {"load__mode": "concurrency", "load__target_qps": None}


def test_a_query_is_issued_for_each_user_and_then_for_each_answer() -> None:
    loop, issued = UserLoop(7, 3), Queue[int]()
    in_flight, most = threading.Semaphore(3), []

    def issue(position: int, _: int) -> None:
        """Note a query; fail where all users wait."""
        most.append(in_flight.acquire(blocking=False))
        issued.put(position)

    thread = threading.Thread(target=loop.run, args=(issue,))
    thread.start()
    for position in range(7):
        assert issued.get(timeout=10) == position
        in_flight.release()
        loop.complete(position, 1)
    thread.join(10)
    assert not thread.is_alive()
    assert most == [True] * 7


def test_a_query_arrives_when_it_is_sent() -> None:
    schedule = draw_schedule(make_settings(**USERS, load__concurrency=2))
    assert len(schedule) == 459
    assert (schedule.arrival_ns == NOT_SENT).all()
    tracker = RequestTracker(schedule)
    for now_ns in (1000, 1005, 4000):
        tracker.note_issue(now_ns)
    assert schedule.arrival_ns[:4].tolist() == [0, 5, 3000, NOT_SENT]
    assert tracker.start_ns == 1000
    assert tracker.issue_delay_ns().tolist() == [0, 0, 0]
    assert tracker.overdue_ns(10**15) == 0


@pytest.mark.slow
def test_users_wait_for_their_answers_and_are_recorded_like_any_run(tmp_path: Path) -> None:
    with StreamingServer(first_token_s=0.01, tokens_per_event=3) as server:
        finished = run(tmp_path, server, **USERS, load__concurrency=12, slo__ttft_p99_s=20.0)
    assert finished.process.returncode == 0, finished.process.stderr
    assert [path.name for path in finished.out.iterdir()] == ["requests.npz"]
    log = finished.log
    assert len(log) == 459
    assert (log.error == "").all()
    assert (np.diff(log.scheduled_ns) >= 0).all()
    in_flight = [int(((log.scheduled_ns <= ns) & (log.done_ns > ns)).sum()) for ns in log.scheduled_ns]
    assert max(in_flight) == 12
    assert (log.scheduled_ns[12:] >= np.sort(log.done_ns)[:-12]).all()
    assert "459 queries of 12 users" in finished.process.stderr
