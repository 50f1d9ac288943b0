"""The streaming thread against a real server; LoadGen's place is taken by a list of what it would hear."""

import asyncio
import re
import sys
import threading
import time
from typing import Any

import pytest
from right_client import make_settings
from streaming_server import FAULTS, StreamingServer

from tune.client.answer import Answer
from tune.client.endpoint import Endpoint, _Stamped, check_endpoint
from tune.client.ledger import Ledger
from tune.client.prompts import Prompts
from tune.client.schedule import draw_schedule
from tune.client.settings import ClientSettings
from tune.client.streams import Streams
from tune.errors import RunAgain

ERRORS = {
    "http": "http 503: no worker left for this model",
    "drop": "connection: ",
    "empty": "empty: ",
    "half": "cut: ClientPayloadError",
    "cut": r"cut: the stream ended after its first token",
    "garbage": "garbage: <html>502 Bad Gateway</html>",
    "not_json": r"garbage: \{not json\}",
    "no_usage": "no usage: ",
    "zero_usage": "no tokens: ",
    "error_event": "server: an error event",
    "error_object": "server: .*worker lost",
    "hang": "time-out: no first token within request_timeout_s 0.5",
    "stall": "time-out: no end within response_timeout_s 1.5",
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


def stream(server: StreamingServer, queries: int, **changes: Any) -> tuple[Ledger, Heard]:
    """Issue `queries` all at once and wait for the last report; the id of each is its position + 1000."""
    settings = make_settings(endpoint_url=server.url, **changes)
    schedule = draw_schedule(settings.load)
    ledger, heard = Ledger(schedule), Heard(queries)
    streams = Streams(settings, ledger, Prompts(settings, 400), heard, time.monotonic_ns)
    streams.start()
    for _ in range(queries):
        position = ledger.note_issue(time.monotonic_ns())
        streams.submit(position, position + 1000)
    assert heard.all_complete.wait(60)
    streams.stop()
    return ledger, heard


def test_every_fault_is_an_error_told_once_and_late() -> None:
    time_outs = {"load__request_timeout_s": 0.5, "load__response_timeout_s": 1.5}
    with StreamingServer(first_token_s=0.0, fault_of=lambda n: (*FAULTS, None)[n % 14]) as server:
        ledger, heard = stream(server, 28, load__client_concurrency=28, **time_outs)
    fault_of = {seen.start_of_prompt: seen.fault for seen in server.seen}
    prompts = Prompts(make_settings(), 400)
    told = []
    for position, answer in enumerate(ledger.answers[:28]):
        fault = fault_of[start_of_prompt(prompts, ledger, position)]
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
    assert sorted(map(str, told)) == sorted([*map(str, (*FAULTS, None))] * 2)


def start_of_prompt(prompts: Prompts, ledger: Ledger, position: int) -> tuple[int, ...]:
    tokens = min(32, int(ledger.schedule.input_tokens[position]))
    body = prompts.body(position, tokens, 1)
    return tuple(int(token) for token in re.findall(rb"\d{5}", body.split(b'"prompt":')[1]))


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
    prompts = Prompts(make_settings(), 400)
    for position, answer in enumerate(ledger.answers[:16]):
        one = seen[start_of_prompt(prompts, ledger, position)]
        (_, first_ns), (tokens, complete_ns) = heard.of[position + 1000]
        assert ledger.issued_ns[position] < one.arrived_ns < one.first_write_ns < answer.first_token_ns
        assert answer.first_token_ns <= first_ns
        assert one.end_write_ns < answer.done_ns <= complete_ns
        assert tokens == answer.output_tokens == one.body["max_tokens"]
        assert tokens == ledger.schedule.output_tokens[position]
        assert len(one.body["prompt"]) == ledger.schedule.input_tokens[position]


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
    with StreamingServer() as server, pytest.raises(RunAgain, match=re.escape(found)):
        asyncio.run(check_endpoint(make_settings(**{"endpoint_url": server.url, **changes})))


def test_a_wrong_path_is_refused() -> None:
    with StreamingServer() as server, pytest.raises(RunAgain, match="/v2/models: "):
        asyncio.run(check_endpoint(make_settings(endpoint_url=server.url.replace("v1", "v2"))))


def test_a_frontend_without_workers_is_refused() -> None:
    with StreamingServer(models=()) as server, pytest.raises(RunAgain, match="serves no model"):
        asyncio.run(check_endpoint(make_settings(endpoint_url=server.url)))


def test_only_a_read_that_brought_something_is_stamped() -> None:
    """aiohttp also calls without data, when it resumes reading: long after the socket was read."""
    ticks = iter(range(100))

    async def read() -> list[int]:
        protocol = _Stamped(asyncio.get_running_loop(), lambda: next(ticks))
        stamps = []
        for data in (b"a", b"", b"", b"b", b""):
            protocol.data_received(data)
            stamps.append(protocol.read_ns)
        return stamps

    assert asyncio.run(read()) == [0, 0, 0, 1, 1]


def test_every_time_is_stamped_where_aiohttp_reads_its_socket() -> None:
    """The stamps hang on a private hook of aiohttp: without it times would be those of a later task."""
    callers: list[str] = []

    def clock() -> int:
        callers.append(sys._getframe(1).f_code.co_qualname)
        return len(callers)

    async def ask(settings: ClientSettings) -> Answer:
        answer, endpoint = Answer(), Endpoint(settings, clock)
        await endpoint.ask(Prompts(settings, 9).body(0, 9, 5), answer, lambda: None)
        await endpoint.close()
        return answer

    with StreamingServer() as server:
        answer = asyncio.run(ask(make_settings(endpoint_url=server.url)))
    assert answer.error == ""
    assert 0 < answer.first_token_ns < answer.done_ns
    assert set(callers) == {"_Stamped.data_received"}
