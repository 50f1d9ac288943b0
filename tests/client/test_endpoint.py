"""Test the endpoint and its connections against servers that behave well or badly."""

import asyncio
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.right_client import make_settings
from support.streaming_server import StreamingServer

from tune.client.endpoint import Endpoint, check_endpoints
from tune.client.http_exchange import Exchange
from tune.client.sse_response import StreamedResponse
from tune.errors import ResumableError


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
            settings = make_settings(endpoint_urls=[f"http://127.0.0.1:{port}/v1"])
            endpoint, responses = (
                Endpoint(settings, settings.endpoint_urls[0], time.monotonic_ns, spares=3),
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
            settings = make_settings(endpoint_urls=[f"http://127.0.0.1:{port}/v1"])
            endpoint = Endpoint(settings, settings.endpoint_urls[0], time.monotonic_ns, spares=2)
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
            settings = make_settings(endpoint_urls=[f"http://127.0.0.1:{port}/v1"])
            response, endpoint = (
                StreamedResponse(),
                Endpoint(settings, settings.endpoint_urls[0], time.monotonic_ns),
            )
            await endpoint.request(b"{}", response, lambda: None)
            return response

    return asyncio.run(request())


def test_answer_that_is_whole_but_for_done_is_waited_for_until_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server keeps the connection open until it is closed; an hour passes with the first token."""
    reply = b'data: {"choices":[{"text":"a","finish_reason":"stop"}],"usage":{"completion_tokens":1}}\n\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(HEAD + b"\r\n" + reply)
        await reader.read()
        writer.close()

    async def request() -> StreamedResponse:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            urls = [f"http://127.0.0.1:{port}/v1"]
            settings = make_settings(endpoint_urls=urls, load__response_timeout_s=3600.0)
            response, loop = StreamedResponse(), asyncio.get_running_loop()
            now_s = loop.time
            await Endpoint(settings, urls[0], time.monotonic_ns).request(
                b"{}", response, lambda: monkeypatch.setattr(loop, "time", lambda: now_s() + 3600.0)
            )
            return response

    response = asyncio.run(request())
    assert response.error == "time-out: no end within response_timeout_s 3600"
    assert response.first_token_ns > 0
    assert response.output_tokens == 0


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"served_model_name": "other"}, "serves llama; expected the model 'other'"),
        ({"served_model_name": "lla"}, "serves llama"),
        ({"endpoint_urls": ["http://127.0.0.1:9/v1"]}, "127.0.0.1:9/v1/models: Client"),
        ({"endpoint_urls": ["http://no-such-host.invalid/v1"]}, "models: Client"),
    ],
)
def test_endpoint_without_the_model_is_refused(changes: dict[str, Any], message: str) -> None:
    with StreamingServer() as server, pytest.raises(ResumableError, match=re.escape(message)):
        asyncio.run(check_endpoints(make_settings(**{"endpoint_urls": [server.url], **changes})))


def test_wrong_path_is_refused() -> None:
    with StreamingServer() as server, pytest.raises(ResumableError, match="/v2/models: "):
        asyncio.run(check_endpoints(make_settings(endpoint_urls=[server.url.replace("v1", "v2")])))


def test_frontend_without_workers_is_refused() -> None:
    with StreamingServer(models=()) as server, pytest.raises(ResumableError, match="serves no model"):
        asyncio.run(check_endpoints(make_settings(endpoint_urls=[server.url])))


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
