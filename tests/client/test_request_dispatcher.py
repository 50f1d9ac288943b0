"""Test the dispatcher against a real server, with a recording sink in place of LoadGen."""

import asyncio
import hashlib
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.right_client import make_settings
from support.streaming_server import FAULTS, TEMPLATE_TOKENS, Seen, StreamingServer
from support.waiting import wait_for

from tune.client.client_settings import ClientSettings
from tune.client.endpoint import Endpoint, check_endpoint
from tune.client.http_exchange import Exchange
from tune.client.prompts import Prompts
from tune.client.request_dispatcher import RequestDispatcher
from tune.client.request_tracker import RequestTracker
from tune.client.schedule import Schedule, draw_schedule
from tune.client.sse_response import StreamedResponse
from tune.errors import ResumableError

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
    settings = make_settings(endpoint_url=server.url, **changes)
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


async def turn_loop(turns: int = 100) -> None:
    """Let the event loop handle all that is ready.

    Client and server share the loop and the loopback device needs no time, so turns count and seconds do not.
    """
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_spare_connection_closed_by_the_server_costs_no_request(greeting: bytes) -> None:
    """The server closes every second connection before a request, with or without a response."""
    closed = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal closed
        connections.append(writer)
        if len(connections) % 2:
            await reader.readuntil(b"}")
            writer.write(HEAD + CHUNKED + b"0\r\n\r\n")
        else:
            closed += 1
            writer.write(greeting)
        writer.close()

    connections: list[asyncio.StreamWriter] = []

    async def request() -> list[StreamedResponse]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = make_settings(endpoint_url=f"http://127.0.0.1:{port}/v1")
            endpoint, responses = (
                Endpoint(settings, time.monotonic_ns, spares=3),
                [StreamedResponse() for _ in range(9)],
            )
            for response in responses:
                await endpoint.request(b"{}", response, lambda: None)
                await turn_loop()
            await endpoint.close()
            return responses

    errors = [response.error for response in asyncio.run(request())]
    assert errors == [""] * 9
    assert closed


def test_spare_connections_are_used_and_finally_closed() -> None:
    opened: list[asyncio.StreamReader] = []
    rests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(reader)
        try:
            await reader.readuntil(b"}")
        except asyncio.IncompleteReadError as error:
            rests.append(error.partial)
        writer.write(HEAD + CHUNKED + b"0\r\n\r\n")
        writer.close()

    async def request() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            endpoint = Endpoint(
                make_settings(endpoint_url=f"http://127.0.0.1:{port}/v1"), time.monotonic_ns, spares=2
            )
            for _ in range(5):
                await endpoint.request(b"{}", StreamedResponse(), lambda: None)
                await turn_loop()
            assert (len(opened), len(rests)) == (5 + 2, 0)
            await endpoint.close()
            await turn_loop()
            assert rests == [b"", b""]

    asyncio.run(request())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
WHOLE = b'data: {"choices":[{"text":"a"}],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n'
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(WHOLE), WHOLE)


def response_to(reply: bytes) -> StreamedResponse:
    """Return what the client makes of a server that sends `reply` to any request and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(reply)
        writer.close()

    async def request() -> StreamedResponse:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = make_settings(endpoint_url=f"http://127.0.0.1:{port}/v1")
            response, endpoint = StreamedResponse(), Endpoint(settings, time.monotonic_ns)
            await endpoint.request(b"{}", response, lambda: None)
            return response

    return asyncio.run(request())


@pytest.mark.parametrize(
    "reply",
    [
        HEAD + CHUNKED + b"0\r\n\r\n",
        HEAD + CHUNKED,
        HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE),
        HEAD + b"\r\n" + WHOLE,
    ],
)
def test_answer_ends_at_done(reply: bytes) -> None:
    assert response_to(reply).error == ""


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "connection: the connection was closed before the head"),
        (b"\x16\x03\x01 not http\r\n\r\n", "connection: "),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "connection: "),
        (HEAD, "connection: "),
        (HEAD + b"Content-Length: 900\r\n\r\n" + WHOLE[:60], "cut: "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "cut: Invalid character in chunk size"),
        (HEAD + b"Content-Length: x\r\n\r\n" + WHOLE, "connection: "),
        (HEAD + b"X: " + b"y" * 100_000, "connection: a head of more than 64 KiB"),
        (HEAD + b"Content-Length: 15\r\n\r\n" + b'{"choices": []}', "cut: the stream ended before its first"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + b"\x1f\x8b\x08\x00\n" + WHOLE, "garbage: "),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "http 204"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", "http 301"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 900\r\n\r\nworker lo", "http 500: worker lo"),
    ],
)
def test_malformed_http_response_is_an_error(reply: bytes, error: str) -> None:
    response = response_to(reply)
    assert re.match(error, response.error), response.error
    assert response.done_ns == -1


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=80), before=st.sampled_from([b"", HEAD, HEAD + b"\r\n", HEAD + CHUNKED[:60]]))
def test_noise_in_http_is_an_error_without_exception(noise: bytes, before: bytes) -> None:
    response = response_to(before + noise.replace(b"[DONE]", b""))
    assert response.error
    assert response.done_ns == -1


def test_long_answer_in_one_read_is_accepted() -> None:
    with StreamingServer(first_token_s=0.0, token_s=0.0, tokens_per_event=10_000) as server:
        tracker, _ = stream(server, 2)
    assert [response.error for response in tracker.responses[:2]] == ["", ""]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"served_model_name": "other"}, "serves llama; expected the model 'other'"),
        ({"served_model_name": "lla"}, "serves llama"),
        ({"endpoint_url": "http://127.0.0.1:9/v1"}, "127.0.0.1:9/v1/models: Client"),
        ({"endpoint_url": "http://no-such-host.invalid/v1"}, "models: Client"),
    ],
)
def test_endpoint_without_the_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with StreamingServer() as server, pytest.raises(ResumableError, match=re.escape(message)):
        asyncio.run(check_endpoint(make_settings(**{"endpoint_url": server.url, **changes})))


def test_wrong_path_is_refused() -> None:
    with StreamingServer() as server, pytest.raises(ResumableError, match="/v2/models: "):
        asyncio.run(check_endpoint(make_settings(endpoint_url=server.url.replace("v1", "v2"))))


def test_frontend_without_workers_is_refused() -> None:
    with StreamingServer(models=()) as server, pytest.raises(ResumableError, match="serves no model"):
        asyncio.run(check_endpoint(make_settings(endpoint_url=server.url)))


def test_each_read_is_stamped_in_its_own_callback() -> None:
    """The event loop's callback stamps: a task that awaits the data runs later, much later when busy."""
    first, rest = WHOLE.split(b"\n\n", 1)

    async def receive() -> None:
        now_ns = 7
        begun: list[int] = []
        response, transport = StreamedResponse(), WritingTransport()
        exchange = Exchange(b"POST", response, lambda: now_ns, lambda: begun.append(now_ns))
        exchange.connection_made(transport)
        assert transport.written == b"POST"
        exchange.data_received(HEAD + b"\r\n" + first + b"\n\n")
        assert (response.first_token_ns, begun) == (7, [7])
        now_ns = 9
        exchange.data_received(rest)
        assert (response.error, response.done_ns, begun) == ("", 9, [7])
        assert exchange.ended.done()

    asyncio.run(receive())


class WritingTransport(asyncio.Transport):
    """Keep what is written."""

    written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        pass
