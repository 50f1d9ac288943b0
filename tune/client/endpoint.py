"""The HTTP side: is the model there, and one request with its streamed answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler

from tune.client.answer import Answer
from tune.client.settings import ClientSettings
from tune.errors import RunAgain
from tune.spec.load import Load

Clock = Callable[[], int]
"""Nanoseconds of a monotonic clock."""

_CHECK_TIMEOUT_S = 10.0
_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}


class _Stamped(ResponseHandler):
    """Notes when its socket was last read: the task that awaits the data runs later, much later when busy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        super().__init__(loop)
        self._clock = clock
        self.read_ns = -1

    def data_received(self, data: bytes) -> None:
        if data:  # aiohttp calls without any when it resumes reading
            self.read_ns = self._clock()
        super().data_received(data)


class _StampedConnector(aiohttp.TCPConnector):
    """A new connection for each request: a kept one may be closed by the server just as it is used again."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(limit=0, force_close=True)
        self._factory = cast("partial[ResponseHandler]", partial(_Stamped, self._loop, clock))


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
    """Connections to one deployment, each new and with stamped reads; must be made inside its event loop."""

    def __init__(self, settings: ClientSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        path = {"completions": "completions", "chat": "chat/completions"}[settings.load.api]
        self._url = f"{settings.endpoint_url.rstrip('/')}/{path}"
        self._session = aiohttp.ClientSession(
            connector=_StampedConnector(clock),
            timeout=aiohttp.ClientTimeout(total=None),
            headers=_HEADERS,
            auto_decompress=False,
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask(self, body: bytes, answer: Answer, on_first_token: Callable[[], None]) -> None:
        """Send `body` and read the answer to its end into `answer`; what fails becomes `answer.error`.

        `on_first_token` is called once, when the first non-empty delta was read.
        """
        load, sent_s = self._settings.load, asyncio.get_running_loop().time()
        last_s = sent_s + load.response_timeout_s
        try:
            async with asyncio.timeout_at(min(sent_s + load.request_timeout_s, last_s)) as limit:

                def begin() -> None:
                    limit.reschedule(last_s)
                    on_first_token()

                async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                    if response.status == 200:
                        await self._read(response, answer, begin)
                    else:
                        answer.fail(f"http {response.status}: {_line(await response.content.read(400))}")
        except TimeoutError:
            answer.fail(_timed_out(load, answer))
        except aiohttp.ClientPayloadError as error:
            answer.fail(f"cut: {_named(error)}")
        except (aiohttp.ClientError, OSError) as error:
            answer.fail(f"connection: {_named(error)}")

    async def _read(
        self, response: aiohttp.ClientResponse, answer: Answer, on_first_token: Callable[[], None]
    ) -> None:
        stamped = response.connection and response.connection.protocol
        async for data in response.content.iter_any():
            began = answer.first_token_ns >= 0
            # Without a connection the whole answer came with its headers, in a read just now.
            answer.feed(data, stamped.read_ns if isinstance(stamped, _Stamped) else self._clock())
            if answer.first_token_ns >= 0 and not began:
                on_first_token()
            if answer.over:
                return
        answer.close()


def _timed_out(load: Load, answer: Answer) -> str:
    if answer.first_token_ns < 0 and load.request_timeout_s <= load.response_timeout_s:
        return f"time-out: no first token within request_timeout_s {load.request_timeout_s:g}"
    return f"time-out: no end within response_timeout_s {load.response_timeout_s:g}"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__} {_line(str(error).encode())}".rstrip()


def _line(found: bytes) -> str:
    return " ".join(found.decode("utf-8", "replace").split())[:200]
