"""The streaming thread against a real server; LoadGen's place is taken by a list of what it would hear."""

import asyncio
import hashlib
import json
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.right_client import make_settings
from support.streaming_server import FAULTS, TEMPLATE_TOKENS, Seen, StreamingServer

from tune.client.client_settings import ClientSettings
from tune.client.endpoint import Endpoint, check_endpoint
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
    "hang": "time-out: no first token within request_timeout_s 2",
    "stall": "time-out: no end within response_timeout_s 4",
}


class Heard:
    """Every report with its time: ("first" or a token count, ns)."""

    def __init__(self, queries: int) -> None:
        self.of: dict[int, list[tuple[str | int, int]]] = {}
        self._left = queries
        self.all_complete = threading.Event()

    def first_token(self, response_id: int) -> None:
        self.of.setdefault(response_id, []).append(("first", time.monotonic_ns()))

    def complete(self, response_id: int, output_tokens: int) -> None:
        self.of.setdefault(response_id, []).append((output_tokens, time.monotonic_ns()))
        self._left -= 1
        if not self._left:
            self.all_complete.set()


def stream(server: StreamingServer, queries: int, **changes: Any) -> tuple[RequestTracker, Heard]:
    """Issue `queries` all at once and wait for the last report; the id of each is its position + 1000."""
    settings = make_settings(endpoint_url=server.url, **changes)
    schedule = draw_schedule(settings)
    ledger, heard = RequestTracker(schedule, sends_ids=settings.load.api == "completions"), Heard(queries)
    streams = RequestDispatcher(settings, ledger, prompts_of(settings, schedule), heard, time.monotonic_ns)
    streams.start()
    for _ in range(queries):
        position = ledger.note_issue(time.monotonic_ns())
        streams.submit(position, position + 1000)
    assert heard.all_complete.wait(60)
    streams.check()
    streams.stop()
    return ledger, heard


def prompts_of(settings: ClientSettings, schedule: Schedule) -> Prompts:
    return Prompts(settings.served_model_name, settings.load, schedule)


def test_every_fault_is_an_error_told_once_and_late() -> None:
    time_outs = {"load__request_timeout_s": 2.0, "load__response_timeout_s": 4.0}
    fates = (*FAULTS, None)
    queries = 2 * len(fates)
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: fates[n % len(fates)]) as server:
        ledger, heard = stream(server, queries, load__client_concurrency=queries, **time_outs)
    fault_of = {seen.start_of_prompt: seen.fault for seen in server.seen}
    prompts = prompts_of(make_settings(), ledger.schedule)
    told = []
    for position, answer in enumerate(ledger.answers[:queries]):
        fault = fault_of[start_of_prompt(prompts, position)]
        (first, first_ns), (tokens, complete_ns) = heard.of[position + 1000]
        assert first == "first"
        told.append(fault)
        if fault is None:
            assert (answer.error, tokens) == ("", ledger.schedule.output_tokens[position])
            continue
        assert re.match(ERRORS[fault], answer.error), fault
        if answer.first_token_ns < 0:
            assert tokens == 0
            assert first_ns - ledger.issued_ns[position] > 0.4e9
        else:
            assert tokens == 2
            assert complete_ns - first_ns > 0.2e9
    assert sorted(map(str, told)) == sorted([*map(str, fates)] * 2)


def start_of_prompt(prompts: Prompts, position: int) -> tuple[int, ...]:
    return tuple(json.loads(prompts.body(position))["prompt"][:32])


def test_a_lifted_limit_delays_no_report() -> None:
    with StreamingServer(fault_of=lambda _: "http") as server:
        _, heard = stream(server, 4, slo__ttft_p99_s=None, slo__tpot_p99_s=None)
    assert [[what for what, _ in reports] for reports in heard.of.values()] == [["first", 0]] * 4


def test_concurrency_is_bounded_and_waiting_counts_as_latency() -> None:
    with StreamingServer(first_token_s=0.02) as server:
        ledger, _ = stream(server, 24, load__client_concurrency=3)
    assert server.most_in_flight == 3
    assert all(answer.error == "" for answer in ledger.answers[:24])
    last = max(ledger.answers[:24], key=lambda answer: answer.first_token_ns)
    assert last.first_token_ns - ledger.issued_ns[23] >= (24 / 3 - 1) * 0.02e9


def test_first_tokens_are_stamped_after_the_server_wrote_them_and_before_loadgen_hears() -> None:
    with StreamingServer(tokens_per_event=7) as server:
        ledger, heard = stream(server, 16)
    seen = {one.start_of_prompt: one for one in server.seen}
    prompts = prompts_of(make_settings(), ledger.schedule)
    for position, answer in enumerate(ledger.answers[:16]):
        one = seen[start_of_prompt(prompts, position)]
        (_, first_ns), (tokens, complete_ns) = heard.of[position + 1000]
        assert ledger.issued_ns[position] < one.arrived_ns < one.first_write_ns < answer.first_token_ns
        assert answer.first_token_ns <= first_ns
        assert one.end_write_ns < answer.done_ns <= complete_ns
        assert tokens == answer.output_tokens == one.body["max_tokens"]
        assert tokens == ledger.schedule.output_tokens[position]
        assert len(one.body["prompt"]) == ledger.schedule.input_tokens[position]


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_odd_streams_of_both_apis_are_answers(api: str) -> None:
    with StreamingServer(first_token_s=0.0, tokens_per_event=5, odd=True) as server:
        ledger, _ = stream(server, 3, load__api=api)
    log = ledger.to_log()
    assert log.error.tolist() == [""] * 3
    assert log.output_tokens.tolist() == ledger.schedule.output_tokens[:3].tolist()
    sent = {tuple(one.prompt) for one in server.seen}
    prompts = prompts_of(make_settings(load__api=api), ledger.schedule)
    expected = [Seen(0, json.loads(prompts.body(position)), None) for position in range(3)]
    assert sent == {tuple(one.prompt) for one in expected}
    template = TEMPLATE_TOKENS if api == "chat" else 0
    assert log.input_tokens.tolist() == [len(one.prompt) + template for one in expected]


def test_the_benchmarks_own_prompts_may_end_early_but_not_late(root: Path) -> None:
    path = root / "tests/data/dataset/pandas_2.2.3.pkl"
    own = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "samples": 8}
    changes = {f"load__dataset__{name}": value for name, value in own.items()}
    with StreamingServer(fault_of=lambda n: ("short", "long", "zero_usage", None)[n]) as server:
        ledger, _ = stream(server, 4, load__client_concurrency=1, **changes)
    log = ledger.to_log()
    assert log.output_tokens.tolist() == [29, 0, 0, 30]
    assert [error.split(":")[0] for error in log.error] == ["", "long", "no tokens", ""]


def test_an_endpoint_that_leaves_refuses_what_comes_later() -> None:
    """It answers on the connections that were made before, and takes no new one."""
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: "leave" if n == 2 else None) as server:
        ledger, _ = stream(server, 12, load__client_concurrency=1)
    errors = ledger.to_log().error.tolist()
    assert errors[:3] == [""] * 3
    assert all(re.match("connection: ConnectionRefusedError .*127.0.0.1", error) for error in errors[8:])


def test_a_fault_of_our_own_is_raised_and_not_waited_for() -> None:
    """Prompts of a shorter schedule than the ledger's: asking for one more is a mistake of our own."""
    settings = make_settings()
    ledger, heard = RequestTracker(draw_schedule(settings)), Heard(1)
    few = draw_schedule(make_settings(load__min_duration_s=0.01, load__min_queries=1))
    streams = RequestDispatcher(settings, ledger, prompts_of(settings, few), heard, time.monotonic_ns)
    streams.start()
    streams.check()
    streams.submit(len(ledger.answers) - 1, 1000)
    with pytest.raises(IndexError, match="out of bounds"):
        check_until_it_raises(streams)
    streams.stop()
    assert not heard.of


def check_until_it_raises(streams: RequestDispatcher) -> None:
    for _ in range(1000):
        streams.check()
        time.sleep(0.01)


@pytest.mark.parametrize("unasked", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_a_connection_made_ahead_that_the_server_gave_up_costs_no_request(unasked: bytes) -> None:
    """This server gives up every second connection before it is asked, saying so or not."""
    given_up = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given_up
        connections.append(writer)
        if len(connections) % 2:
            await reader.readuntil(b"}")
            writer.write(HEAD + CHUNKED + b"0\r\n\r\n")
        else:
            given_up += 1
            writer.write(unasked)
        writer.close()

    connections: list[asyncio.StreamWriter] = []

    async def ask() -> list[StreamedResponse]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = make_settings(endpoint_url=f"http://127.0.0.1:{port}/v1", load__response_timeout_s=5.0)
            endpoint, answers = (
                Endpoint(settings, time.monotonic_ns, ahead=3),
                [StreamedResponse() for _ in range(9)],
            )
            for answer in answers:
                await endpoint.ask(b"{}", answer, lambda: None)
                await asyncio.sleep(0.02)
            await endpoint.close()
            return answers

    errors = [answer.error for answer in asyncio.run(ask())]
    assert errors == [""] * 9
    assert given_up


def test_connections_made_ahead_are_used_and_closed_in_the_end() -> None:
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

    async def ask() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            endpoint = Endpoint(
                make_settings(endpoint_url=f"http://127.0.0.1:{port}/v1"), time.monotonic_ns, ahead=2
            )
            for _ in range(5):
                await endpoint.ask(b"{}", StreamedResponse(), lambda: None)
                await asyncio.sleep(0.02)
            assert (len(opened), len(rests)) == (5 + 2, 0)
            await endpoint.close()
            await asyncio.sleep(0.02)
            assert rests == [b"", b""]

    asyncio.run(ask())


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
WHOLE = b'data: {"choices":[{"text":"a"}],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n'
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(WHOLE), WHOLE)


def answer_to(reply: bytes) -> StreamedResponse:
    """What the client makes of a server that sends `reply` whatever it is asked, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(reply)
        writer.close()

    async def ask() -> StreamedResponse:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = make_settings(endpoint_url=f"http://127.0.0.1:{port}/v1", load__response_timeout_s=5.0)
            answer, endpoint = StreamedResponse(), Endpoint(settings, time.monotonic_ns)
            await endpoint.ask(b"{}", answer, lambda: None)
            return answer

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "reply",
    [
        HEAD + CHUNKED + b"0\r\n\r\n",
        HEAD + CHUNKED,
        HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE),
        HEAD + b"\r\n" + WHOLE,
    ],
)
def test_the_end_of_an_answer_is_its_done(reply: bytes) -> None:
    assert answer_to(reply).error == ""


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "connection: the connection was closed before the head"),
        (b"\x16\x03\x01 not http\r\n\r\n", "connection: "),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "connection: "),
        (HEAD, "connection: "),
        (HEAD + b"Content-Length: 900\r\n\r\n" + WHOLE[:60], "cut: "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "cut: a chunk without a size: zz"),
        (HEAD + b"Content-Length: x\r\n\r\n" + WHOLE, "connection: "),
        (HEAD + b"X: " + b"y" * 100_000, "connection: a head of more than 64 KiB"),
        (HEAD + b"Content-Length: 15\r\n\r\n" + b'{"choices": []}', "cut: the stream ended before its first"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + b"\x1f\x8b\x08\x00\n" + WHOLE, "garbage: "),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "http 204"),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", "http 301"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 900\r\n\r\nworker lo", "http 500: worker lo"),
    ],
)
def test_what_is_no_answer_in_http_is_an_error(reply: bytes, error: str) -> None:
    answer = answer_to(reply)
    assert re.match(error, answer.error), answer.error
    assert answer.done_ns == -1


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=80), before=st.sampled_from([b"", HEAD, HEAD + b"\r\n", HEAD + CHUNKED[:60]]))
def test_noise_in_http_is_an_error_and_raises_nothing(noise: bytes, before: bytes) -> None:
    answer = answer_to(before + noise.replace(b"[DONE]", b""))
    assert answer.error
    assert answer.done_ns == -1


def test_one_long_answer_in_one_read_is_an_answer() -> None:
    with StreamingServer(first_token_s=0.0, token_s=0.0, tokens_per_event=10_000) as server:
        ledger, _ = stream(server, 2)
    assert [answer.error for answer in ledger.answers[:2]] == ["", ""]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"served_model_name": "other"}, "serves llama; expected the model 'other'"),
        ({"served_model_name": "lla"}, "serves llama"),
        ({"endpoint_url": "http://127.0.0.1:9/v1"}, "127.0.0.1:9/v1/models: Client"),
        ({"endpoint_url": "http://no-such-host.invalid/v1"}, "models: Client"),
    ],
)
def test_an_endpoint_that_does_not_serve_the_model_is_refused(changes: dict[str, Any], found: str) -> None:
    with StreamingServer() as server, pytest.raises(ResumableError, match=re.escape(found)):
        asyncio.run(check_endpoint(make_settings(**{"endpoint_url": server.url, **changes})))


def test_a_wrong_path_is_refused() -> None:
    with StreamingServer() as server, pytest.raises(ResumableError, match="/v2/models: "):
        asyncio.run(check_endpoint(make_settings(endpoint_url=server.url.replace("v1", "v2"))))


def test_a_frontend_without_workers_is_refused() -> None:
    with StreamingServer(models=()) as server, pytest.raises(ResumableError, match="serves no model"):
        asyncio.run(check_endpoint(make_settings(endpoint_url=server.url)))


def test_every_time_is_stamped_where_the_socket_is_read() -> None:
    """In the event loop's own callback: a task that awaits the data runs later, much later when busy."""
    callers: list[str] = []

    def clock() -> int:
        callers.append(sys._getframe(1).f_code.co_qualname)
        return len(callers)

    async def ask(settings: ClientSettings) -> StreamedResponse:
        answer, endpoint = StreamedResponse(), Endpoint(settings, clock)
        await endpoint.ask(b'{"max_tokens":5,"prompt":[1,2]}', answer, lambda: None)
        return answer

    with StreamingServer() as server:
        answer = asyncio.run(ask(make_settings(endpoint_url=server.url)))
    assert answer.error == ""
    assert 0 < answer.first_token_ns < answer.done_ns
    assert set(callers) == {"Exchange.data_received"}
