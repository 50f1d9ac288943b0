"""The HTTP side: is the model there, and one request with its streamed answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tune.client.answer import Answer
from tune.client.exchange import Clock, Exchange
from tune.client.settings import ClientSettings
from tune.errors import RunAgain
from tune.spec.load import Load

_CHECK_TIMEOUT_S = 10.0
_PATHS = {"completions": "completions", "chat": "chat/completions"}
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    "Accept: text/event-stream\r\nAccept-Encoding: identity\r\nContent-Length: "
)


async def check_endpoint(settings: ClientSettings) -> None:
    """Ask the endpoint for its models. Raises RunAgain when it does not answer or does not serve ours."""
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
        raise RunAgain(f"{url}: {_named(error)}; {expected}. {advice}") from error
    if status != 200:
        raise RunAgain(f"{url}: status {status}; {expected}. {advice}")
    names = _model_names(listed)
    if settings.served_model_name not in names:
        raise RunAgain(f"{url}: serves {', '.join(names) or 'no model'}; {expected}. {advice}")


def _model_names(listed: Any) -> list[str]:
    entries = listed.get("data") if isinstance(listed, dict) else None
    return [str(entry.get("id")) for entry in entries or [] if isinstance(entry, dict)]


class Endpoint:
    """Connections to one deployment, each new: a kept one may be closed by the server as it is used again."""

    def __init__(self, settings: ClientSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        url = urlsplit(settings.endpoint_url)
        path = f"{url.path.rstrip('/')}/{_PATHS[settings.load.api]}"
        self._head = _HEAD.format(path=path, host=url.netloc.rpartition("@")[2]).encode()
        self._tls = url.scheme == "https"
        self._host, self._port = str(url.hostname), url.port or (443 if self._tls else 80)

    async def ask(self, body: bytes, answer: Answer, on_first_token: Callable[[], None]) -> None:
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
                transport, _ = await loop.create_connection(
                    lambda: exchange, self._host, self._port, ssl=True if self._tls else None
                )
                try:
                    await exchange.ended
                finally:
                    transport.abort()
        except OSError as error:
            answer.fail(_timed_out(load, answer) if limit.expired() else f"connection: {_named(error)}")


def _timed_out(load: Load, answer: Answer) -> str:
    if answer.first_token_ns < 0 and load.request_timeout_s <= load.response_timeout_s:
        return f"time-out: no first token within request_timeout_s {load.request_timeout_s:g}"
    return f"time-out: no end within response_timeout_s {load.response_timeout_s:g}"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {_line(str(error).encode())}".rstrip()


def _line(found: bytes) -> str:
    return " ".join(found.decode("utf-8", "replace").split())[:200]
