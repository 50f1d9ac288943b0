"""The HTTP side: is the model there, and one request with its streamed answer."""

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
_LONGEST_IDLE_S = 2.0
"""Less than any server waits for a request on a new connection."""

_PATHS = {"completions": "completions", "chat": "chat/completions"}
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    "Accept: text/event-stream\r\nAccept-Encoding: identity\r\nContent-Length: "
)


async def check_endpoint(settings: ClientSettings) -> None:
    """Ask the endpoint for its models. Raises ResumableError when it does not answer or does not serve ours."""
    url = f"{settings.endpoint_url.rstrip('/')}/models"
    expected = f"expected the model {settings.served_model_name!r} at {url}"
    advice = "See the frontend's and the workers' logs, then run the trial again."
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CHECK_TIMEOUT_S)) as session,
            session.get(url) as response,
        ):
            status, listed = response.status, await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ResumableError(f"{url}: {_named(error)}; {expected}. {advice}") from error
    if status != 200:
        raise ResumableError(f"{url}: status {status}; {expected}. {advice}")
    names = _model_names(listed)
    if settings.served_model_name not in names:
        raise ResumableError(f"{url}: serves {', '.join(names) or 'no model'}; {expected}. {advice}")


def _model_names(listed: Any) -> list[str]:
    entries = listed.get("data") if isinstance(listed, dict) else None
    return [str(entry.get("id")) for entry in entries or [] if isinstance(entry, dict)]


class Endpoint:
    """Connections to one deployment, one a request: a used one may be closed by the server as it is reused.

    `ahead` of them are made before their request comes, so that no request waits for its own in a busy loop.
    """

    def __init__(self, settings: ClientSettings, clock: Clock, ahead: int = 0) -> None:
        self._settings, self._clock, self._ahead = settings, clock, ahead
        self._made: deque[asyncio.Transport] = deque()
        self._making: set[asyncio.Task[None]] = set()
        url = urlsplit(settings.endpoint_url)
        path = f"{url.path.rstrip('/')}/{_PATHS[settings.load.api]}"
        self._head = _HEAD.format(path=path, host=url.netloc.rpartition("@")[2]).encode()
        self._tls = url.scheme == "https"
        self._host, self._port = str(url.hostname), url.port or (443 if self._tls else 80)

    async def ask(self, body: bytes, answer: StreamedResponse, on_first_token: Callable[[], None]) -> None:
        """Send `body` and read the answer to its end into `answer`; what fails becomes `answer.error`.

        `on_first_token` is called once, when the first non-empty delta was read.
        """
        loop, load = asyncio.get_running_loop(), self._settings.load
        sent_s = loop.time()
        last_s = sent_s + load.response_timeout_s
        try:
            async with asyncio.timeout_at(min(sent_s + load.request_timeout_s, last_s)) as limit:

                def begin() -> None:
                    limit.reschedule(last_s)
                    on_first_token()

                exchange = Exchange(
                    b"%b%d\r\n\r\n%b" % (self._head, len(body), body), answer, self._clock, begin
                )
                transport = self._take(exchange) or await self._connect(exchange)
                self._make_ahead()
                try:
                    await exchange.ended
                finally:
                    transport.abort()
        except OSError as error:
            answer.fail(_timed_out(load, answer) if limit.expired() else f"connection: {_named(error)}")

    async def close(self) -> None:
        """Give up the connections that no request has taken."""
        for task in self._making:
            task.cancel()
        await asyncio.gather(*self._making, return_exceptions=True)
        while self._made:
            self._made.popleft().abort()

    def _take(self, exchange: Exchange) -> asyncio.Transport | None:
        """Let `exchange` begin on the oldest connection that was made ahead and still holds, if any."""
        while self._made:
            transport = self._made.popleft()
            if not transport.is_closing():
                transport.set_protocol(exchange)
                exchange.connection_made(transport)
                return transport
        return None

    def _make_ahead(self) -> None:
        for _ in range(self._ahead - len(self._made) - len(self._making)):
            task = asyncio.get_running_loop().create_task(self._make())
            self._making.add(task)
            task.add_done_callback(self._making.discard)

    async def _make(self) -> None:
        try:
            transport = await self._connect(_Unasked())
        except OSError:
            return  # the next request meets it, and says so
        self._made.append(transport)
        asyncio.get_running_loop().call_later(_LONGEST_IDLE_S, self._drop, transport)

    def _drop(self, transport: asyncio.Transport) -> None:
        if transport in self._made:
            self._made.remove(transport)
            transport.abort()

    async def _connect(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        tls = True if self._tls else None
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: protocol, self._host, self._port, ssl=tls
        )
        return transport


class _Unasked(asyncio.Protocol):
    """A connection before its request: a server that speaks now is none of ours."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.abort()


def _timed_out(load: Load, answer: StreamedResponse) -> str:
    if answer.first_token_ns < 0 and load.request_timeout_s <= load.response_timeout_s:
        return f"time-out: no first token within request_timeout_s {load.request_timeout_s:g}"
    return f"time-out: no end within response_timeout_s {load.response_timeout_s:g}"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {_line(str(error).encode())}".rstrip()


def _line(found: bytes) -> str:
    return " ".join(found.decode("utf-8", "replace").split())[:200]
