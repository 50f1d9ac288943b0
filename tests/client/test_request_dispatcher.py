"""Test the dispatcher against a real server, with a recording sink in place of LoadGen."""

import hashlib
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.right_client import make_settings
from support.streaming_server import FAULTS, TEMPLATE_TOKENS, Seen, StreamingServer
from support.waiting import wait_for

from tune.client.client_settings import ClientSettings
from tune.client.prompts import Prompts
from tune.client.request_dispatcher import RequestDispatcher
from tune.client.request_tracker import RequestTracker
from tune.client.schedule import Schedule, draw_schedule

pytestmark = pytest.mark.slow

ERRORS = {
    "http": "http 503: no worker left for this model",
    "http_400": "http 400: .*prompt is too long",
    "redirect": "http 307: ",
    "drop": "connection: ",
    "empty": "empty: ",
    "half": "cut: the connection was closed in the middle",
    "reset": "cut: Connection ?Reset",
    "cut": r"cut: the stream ended after its first token",
    "garbage": "garbage: <html>502 Bad Gateway</html>",
    "not_json": r"garbage: \{not json\}",
    "huge_line": "garbage: a line of more than 1 MiB",
    "no_usage": "no usage: ",
    "zero_usage": "no tokens: ",
    "short": r"short: usage counts \d+ tokens, \d+ were asked for",
    "long": r"long: usage counts \d+ tokens, \d+ were allowed",
    "prompt_cut": r"prompt cut: usage counts \d+ tokens, \d+ were sent",
    "error_event": "server: an error event",
    "error_object": "server: .*worker lost",
    "gave_up": "server: the answer finished with finish_reason timeout",
}
TIME_OUTS = {
    "hang": ("load__request_timeout_s", "time-out: no first token within request_timeout_s 0.3"),
    "stall": ("load__response_timeout_s", "time-out: no end within response_timeout_s 0.3"),
}


class RecordingSink:
    """Record every report with its time: ("first" or a token count, ns)."""

    def __init__(self, queries: int) -> None:
        self.reports: dict[int, list[tuple[str | int, int]]] = {}
        self._left = queries
        self.all_complete = threading.Event()

    def first_token(self, response_id: int) -> None:
        self.reports.setdefault(response_id, []).append(("first", time.monotonic_ns()))

    def complete(self, response_id: int, output_tokens: int) -> None:
        self.reports.setdefault(response_id, []).append((output_tokens, time.monotonic_ns()))
        self._left -= 1
        if not self._left:
            self.all_complete.set()


def stream(server: StreamingServer, queries: int, **changes: Any) -> tuple[RequestTracker, RecordingSink]:
    """Issue `queries` at once and wait for the last report; the id of each is its position + 1000."""
    settings = make_settings(endpoint_urls=[server.url], **changes)
    schedule = draw_schedule(settings)
    tracker, sink = (
        RequestTracker(schedule, sends_ids=settings.load.api == "completions"),
        RecordingSink(queries),
    )
    dispatcher = RequestDispatcher(settings, tracker, prompts_of(settings, schedule), sink, time.monotonic_ns)
    dispatcher.start()
    for _ in range(queries):
        position = tracker.note_issue(time.monotonic_ns())
        dispatcher.submit(position, position + 1000)
    assert sink.all_complete.wait(60)
    dispatcher.check()
    dispatcher.stop()
    return tracker, sink


def prompts_of(settings: ClientSettings, schedule: Schedule) -> Prompts:
    return Prompts(settings.served_model_name, settings.load, schedule)


def test_each_fault_is_an_error_reported_once_and_late() -> None:
    fates = (*ERRORS, None)
    queries = 2 * len(fates)
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: fates[n % len(fates)]) as server:
        tracker, sink = stream(server, queries, load__client_concurrency=queries)
    fault_of = {seen.start_of_prompt: seen.fault for seen in server.seen}
    prompts = prompts_of(make_settings(), tracker.schedule)
    faults_met = []
    for position, response in enumerate(tracker.responses[:queries]):
        fault = fault_of[start_of_prompt(prompts, position)]
        (first, first_ns), (tokens, complete_ns) = sink.reports[position + 1000]
        assert first == "first"
        faults_met.append(fault)
        if fault is None:
            assert (response.error, tokens) == ("", tracker.schedule.output_tokens[position])
            continue
        assert re.match(ERRORS[fault], response.error), fault
        if response.first_token_ns < 0:
            assert tokens == 0
            assert first_ns - tracker.issued_ns[position] > 0.4e9
        else:
            assert tokens == 2
            assert complete_ns - first_ns > 0.2e9
    assert sorted(map(str, faults_met)) == sorted([*map(str, fates)] * 2)


def test_faults_end_or_time_out() -> None:
    assert {*FAULTS} == {*ERRORS, *TIME_OUTS}


@pytest.mark.parametrize("fault", TIME_OUTS)
def test_silent_server_is_a_time_out_reported_late(fault: str) -> None:
    setting, error = TIME_OUTS[fault]
    with StreamingServer(first_token_s=0.0, fault_of=lambda _: fault) as server:
        tracker, sink = stream(server, 2, **{setting: 0.3})
    for position, response in enumerate(tracker.responses[:2]):
        (first, first_ns), (tokens, complete_ns) = sink.reports[position + 1000]
        assert first == "first"
        assert re.match(error, response.error)
        if response.first_token_ns < 0:
            assert tokens == 0
            assert first_ns - tracker.issued_ns[position] > 0.4e9
        else:
            assert tokens == 2
            assert complete_ns - first_ns > 0.2e9


def start_of_prompt(prompts: Prompts, position: int) -> tuple[int, ...]:
    return tuple(json.loads(prompts.body(position))["prompt"][:32])


def test_lifted_limits_delay_no_report() -> None:
    with StreamingServer(fault_of=lambda _: "http") as server:
        _, sink = stream(server, 4, slo__ttft_p99_s=None, slo__tpot_p99_s=None)
    assert [[kind for kind, _ in reports] for reports in sink.reports.values()] == [["first", 0]] * 4


def test_concurrency_is_limited_and_waiting_counts_as_latency() -> None:
    with StreamingServer(first_token_s=0.02) as server:
        tracker, _ = stream(server, 24, load__client_concurrency=3)
    assert server.most_in_flight == 3
    assert all(response.error == "" for response in tracker.responses[:24])
    last = max(tracker.responses[:24], key=lambda response: response.first_token_ns)
    assert last.first_token_ns - tracker.issued_ns[23] >= (24 / 3 - 1) * 0.02e9


def test_first_tokens_are_stamped_between_server_write_and_report() -> None:
    with StreamingServer(tokens_per_event=7) as server:
        tracker, sink = stream(server, 16)
    seen = {request.start_of_prompt: request for request in server.seen}
    prompts = prompts_of(make_settings(), tracker.schedule)
    for position, response in enumerate(tracker.responses[:16]):
        seen_request = seen[start_of_prompt(prompts, position)]
        (_, first_ns), (tokens, complete_ns) = sink.reports[position + 1000]
        assert tracker.issued_ns[position] < seen_request.arrived_ns < seen_request.first_write_ns
        assert seen_request.first_write_ns < response.first_token_ns
        assert response.first_token_ns <= first_ns
        assert seen_request.end_write_ns < response.done_ns <= complete_ns
        assert tokens == response.output_tokens == seen_request.body["max_tokens"]
        assert tokens == tracker.schedule.output_tokens[position]
        assert len(seen_request.body["prompt"]) == tracker.schedule.input_tokens[position]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_unusual_but_valid_streams_are_accepted(api: str) -> None:
    with StreamingServer(first_token_s=0.0, tokens_per_event=5, odd=True) as server:
        tracker, _ = stream(server, 3, load__api=api)
    log = tracker.to_log()
    assert log.error.tolist() == [""] * 3
    assert log.output_tokens.tolist() == tracker.schedule.output_tokens[:3].tolist()
    sent = {tuple(request.prompt) for request in server.seen}
    prompts = prompts_of(make_settings(load__api=api), tracker.schedule)
    expected = [Seen(0, json.loads(prompts.body(position)), None) for position in range(3)]
    assert sent == {tuple(request.prompt) for request in expected}
    template = TEMPLATE_TOKENS if api == "chat" else 0
    assert log.input_tokens.tolist() == [len(request.prompt) + template for request in expected]


def test_benchmark_answers_may_be_short_but_not_long(root: Path) -> None:
    path = root / "tests/data/dataset/pandas_2.2.3.pkl"
    own = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "samples": 8}
    changes = {f"load__dataset__{name}": value for name, value in own.items()}
    with StreamingServer(fault_of=lambda n: ("short", "long", "zero_usage", None)[n]) as server:
        tracker, _ = stream(server, 4, load__client_concurrency=1, **changes)
    log = tracker.to_log()
    assert log.output_tokens.tolist() == [29, 0, 0, 30]
    assert [error.split(":")[0] for error in log.error] == ["", "long", "no tokens", ""]


def test_requests_after_the_server_left_fail_to_connect() -> None:
    """The server answers on connections made before, and accepts no new one."""
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: "leave" if n == 2 else None) as server:
        tracker, _ = stream(server, 12, load__client_concurrency=1)
    errors = tracker.to_log().error.tolist()
    assert errors[:3] == [""] * 3
    assert all(re.match("connection: ConnectionRefusedError .*127.0.0.1", error) for error in errors[8:])


def test_exception_of_the_client_is_raised_by_check() -> None:
    """The schedule of the prompts is shorter than the tracker's, so the client fails to send one more."""
    settings = make_settings()
    tracker, sink = RequestTracker(draw_schedule(settings)), RecordingSink(1)
    few = draw_schedule(make_settings(load__min_duration_s=0.01, load__min_queries=1))
    dispatcher = RequestDispatcher(settings, tracker, prompts_of(settings, few), sink, time.monotonic_ns)
    dispatcher.start()
    dispatcher.check()
    dispatcher.submit(len(tracker.responses) - 1, 1000)
    with pytest.raises(IndexError, match="out of bounds"):
        wait_for(dispatcher.check)
    dispatcher.stop()
    assert not sink.reports


def test_long_answer_in_one_read_is_accepted() -> None:
    with StreamingServer(first_token_s=0.0, token_s=0.0, tokens_per_event=10_000) as server:
        tracker, _ = stream(server, 2)
    assert [response.error for response in tracker.responses[:2]] == ["", ""]
