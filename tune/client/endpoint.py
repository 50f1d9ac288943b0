"""Check that an endpoint serves the model, and send it requests whose answers are streamed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tune.client.client_settings import ClientSettings
from tune.client.http_exchange import Clock, Exchange
from tune.client.sse_response import StreamedResponse
from tune.errors import ResumableError
from tune.spec.load import Load

_CHECK_TIMEOUT_S = 10.0
_MAX_IDLE_S = 2.0
"""Less than any server waits for a request on a new connection."""

_PATHS = {"completions": "completions", "chat": "chat/completions"}
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    "Accept: text/event-stream\r\nAccept-Encoding: identity\r\nContent-Length: "
)


async def check_endpoints(settings: ClientSettings) -> None:
    """Ask every frontend for its models.

    Raises ResumableError when one is silent or does not serve the model.
    """
    await asyncio.gather(*(_check_endpoint(settings, url) for url in settings.endpoint_urls))


async def _check_endpoint(settings: ClientSettings, endpoint_url: str) -> None:
    """Ask one frontend for its models."""
    url = f"{endpoint_url.rstrip('/')}/models"
    expected = f"expected the model {settings.served_model_name!r} at {url}"
    advice = "See the frontend's and the workers' logs, then run the trial again."
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CHECK_TIMEOUT_S)) as session,
            session.get(url) as response,
        ):
            status, body_json = response.status, await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ResumableError(f"{url}: {_describe_error(error)}; {expected}. {advice}") from error
    if status != 200:
        raise ResumableError(f"{url}: status {status}; {expected}. {advice}")
    names = _model_names(body_json)
    if settings.served_model_name not in names:
        raise ResumableError(f"{url}: serves {', '.join(names) or 'no model'}; {expected}. {advice}")


def _model_names(body_json: Any) -> list[str]:
    """Return the ids in the body of a response to GET /models; none for a body of another form."""
    entries = body_json.get("data") if isinstance(body_json, dict) else None
    return [str(entry.get("id")) for entry in entries or [] if isinstance(entry, dict)]


class Endpoint:
    """Hold the connections to one frontend, one for each request.

    A connection is not used twice: a server may close a used one just as it is reused. `spares` connections
    are opened ahead of their requests, so that no request waits for a connection in a busy event loop.
    """

    def __init__(self, settings: ClientSettings, endpoint_url: str, clock: Clock, spares: int = 0) -> None:
        self._settings, self._clock, self._spare_count = settings, clock, spares
        self._idle: deque[asyncio.Transport] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        url = urlsplit(endpoint_url)
        path = f"{url.path.rstrip('/')}/{_PATHS[settings.load.api]}"
        self._head = _HEAD.format(path=path, host=url.netloc.rpartition("@")[2]).encode()
        self._tls = url.scheme == "https"
        self._host, self._port = str(url.hostname), url.port or (443 if self._tls else 80)

    async def request(
        self, body: bytes, response: StreamedResponse, on_first_token: Callable[[], None]
    ) -> None:
        """Send `body` and read the answer into `response` until it ends; a fault becomes `response.error`.

        `on_first_token` is called once, in the read that brings the first non-empty delta.
        """
        loop, load = asyncio.get_running_loop(), self._settings.load
        sent_s = loop.time()
        last_s = sent_s + load.response_timeout_s
        try:
            async with asyncio.timeout_at(min(sent_s + load.request_timeout_s, last_s)) as limit:

                def extend_limit() -> None:
                    limit.reschedule(last_s)
                    on_first_token()

                exchange = Exchange(
                    b"%b%d\r\n\r\n%b" % (self._head, len(body), body), response, self._clock, extend_limit
                )
                transport = self._reuse_idle(exchange) or await self._connect(exchange)
                self._open_spares()
                try:
                    await exchange.ended
                finally:
                    transport.abort()
        except OSError as error:
            fault = _describe_timeout(load, response) if limit.expired() else _connection_fault(error)
            response.fail(fault)

    async def close(self) -> None:
        """Close the connections that no request has used."""
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        while self._idle:
            self._idle.popleft().abort()

    def _reuse_idle(self, exchange: Exchange) -> asyncio.Transport | None:
        """Start `exchange` on the oldest spare connection that is open; return None if there is none."""
        while self._idle:
            transport = self._idle.popleft()
            if not transport.is_closing():
                transport.set_protocol(exchange)
                exchange.connection_made(transport)
                return transport
        return None

    def _open_spares(self) -> None:
        """Start to open as many connections as are missing from the wanted number of spares."""
        for _ in range(self._spare_count - len(self._idle) - len(self._opening)):
            task = asyncio.get_running_loop().create_task(self._open_spare())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open_spare(self) -> None:
        """Open one spare connection; a failure is left to the next request, which meets and reports it."""
        try:
            transport = await self._connect(_IdleConnection())
        except OSError:
            return  # the next request meets it, and says so
        self._idle.append(transport)
        asyncio.get_running_loop().call_later(_MAX_IDLE_S, self._drop_idle, transport)

    def _drop_idle(self, transport: asyncio.Transport) -> None:
        """Close `transport` if it is still a spare."""
        if transport in self._idle:
            self._idle.remove(transport)
            transport.abort()

    async def _connect(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Open a connection that `protocol` handles. Raises OSError."""
        tls = True if self._tls else None
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol, self._host, self._port, ssl=tls
        )
        return transport


class _IdleConnection(asyncio.Protocol):
    """Hold a connection open before its request. Close it if the server sends data first."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Close the connection: a server must not speak before it is asked."""
        self._transport.abort()


def _describe_timeout(load: Load, response: StreamedResponse) -> str:
    """Return the message for a request that ran into one of the limits of `load`."""
    if response.first_token_ns < 0 and load.request_timeout_s <= load.response_timeout_s:
        return f"time-out: no first token within request_timeout_s {load.request_timeout_s:g}"
    return f"time-out: no end within response_timeout_s {load.response_timeout_s:g}"


def _connection_fault(error: OSError) -> str:
    """Return the message for a connection that failed."""
    return f"connection: {_describe_error(error)}"


def _describe_error(error: BaseException) -> str:
    """Return the class and the text of `error` in one line."""
    return f"{type(error).__name__} {_one_line(str(error).encode())}".rstrip()


def _one_line(text: bytes) -> str:
    """Return at most 200 characters of `text` in one line."""
    return " ".join(text.decode("utf-8", "replace").split())[:200]
