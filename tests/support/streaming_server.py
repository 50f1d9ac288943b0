"""Serve streamed completions as the GPU side does, over real HTTP, with own time stamps and faults."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

MODEL = "llama"
FAULTS = (
    "http", "http_400", "redirect", "drop", "empty", "half", "reset", "cut", "garbage", "not_json",
    "huge_line", "no_usage", "zero_usage", "short", "long", "prompt_cut", "error_event", "error_object",
    "gave_up", "hang", "stall",
)  # fmt: skip
TEMPLATE_TOKENS = 36
"""Tokens that the server counts on top of a chat's words."""


@dataclass
class Seen:
    """Hold one request as the server saw it, times in monotonic ns, -1 for an event that did not happen."""

    arrived_ns: int
    body: dict[str, Any]
    fault: str | None
    first_write_ns: int = -1
    end_write_ns: int = -1

    @property
    def chat(self) -> bool:
        """Return whether this is a chat completion."""
        return "messages" in self.body

    @property
    def prompt(self) -> list[int] | list[str]:
        """Return token ids, or the words of a chat, each a token."""
        if self.chat:
            words: list[str] = self.body["messages"][0]["content"].split()
            return words
        ids: list[int] = self.body["prompt"]
        return ids

    @property
    def start_of_prompt(self) -> tuple[int | str, ...]:
        """Return the first 32 tokens."""
        return tuple(self.prompt[:32])


@dataclass
class StreamingServer:
    """Serve on loopback from an own thread while entered.

    `fault_of(n)` names what goes wrong with the n-th request, None for nothing: one of FAULTS, "late" for a
    good answer that begins after `late_s`, or "leave" for a server that accepts no connection afterwards.
    `odd` streams are right in every way that the form allows: CRLF, comments, other fields, bytes one by one.
    `answer_of` gives the text of an answer, each character a token; None for one of the length asked for.
    """

    first_token_s: float = 0.01
    token_s: float = 0.001
    late_s: float = 0.0
    tokens_per_event: int = 1
    fault_of: Callable[[int], str | None] = lambda _: None
    odd: bool = False
    answer_of: Callable[[Seen], str | None] = lambda _: None
    models: tuple[str, ...] = (MODEL,)
    seen: list[Seen] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """Return the URL of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._main(ready))
        self._loop.close()

    async def _main(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._completions)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        self._site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await self._site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        arrived_ns = time.monotonic_ns()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            seen = Seen(arrived_ns, await request.json(), self.fault_of(len(self.seen)))
            self.seen.append(seen)
            return await self._answer(request, seen)
        except ConnectionError:
            return web.Response()  # the client hung up first, as it does after a time-out
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        if seen.fault == "http":
            return web.Response(status=503, text="no worker left\nfor this model")
        if seen.fault == "http_400":
            return web.json_response({"error": {"message": "prompt is too long"}}, status=400)
        if seen.fault == "redirect":
            raise web.HTTPTemporaryRedirect("/v1/models")
        if seen.fault == "leave":
            await self._site.stop()
        if seen.fault == "drop":
            assert request.transport
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await self._stream(request, response, seen)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, seen: Seen) -> None:
        answer = self.answer_of(seen)
        tokens = int(seen.body["max_tokens"]) if answer is None else len(answer)

        async def write(event: bytes) -> None:
            for piece in _oddly(event) if self.odd else (event,):
                await response.write(piece)

        if seen.fault == "hang":
            await asyncio.sleep(3600)
        if seen.fault != "empty":
            await write(b": keep-alive\n\n" + _event(seen, "", None))
            await asyncio.sleep(self.late_s if seen.fault == "late" else self.first_token_s)
            for sent in range(0, tokens, self.tokens_per_event):
                if sent:
                    await asyncio.sleep(self.token_s * self.tokens_per_event)
                else:
                    seen.first_write_ns = time.monotonic_ns()
                count = min(self.tokens_per_event, tokens - sent)
                text = " \u6f22\U0001f600" * count if answer is None else answer[sent : sent + count]
                await write(_event(seen, text, None))
                if sent >= tokens // 2 and seen.fault and await self._break(request, response, seen.fault):
                    return
        counted = {"zero_usage": 0, "short": tokens - 1, "long": tokens + 1}
        prompt = len(seen.prompt) + TEMPLATE_TOKENS * seen.chat - (seen.fault == "prompt_cut")
        usage = {"prompt_tokens": prompt, "completion_tokens": counted.get(seen.fault or "", tokens)}
        seen.end_write_ns = time.monotonic_ns()
        await write((b"" if seen.fault == "no_usage" else _event(seen, None, usage)) + b"data: [DONE]\n\n")

    async def _break(self, request: web.Request, response: web.StreamResponse, fault: str) -> bool:
        """Do what `fault` says in the middle of a stream; return True where nothing follows."""
        if fault == "half":
            assert request.transport
            await asyncio.sleep(0.01)
            request.transport.abort()
        elif fault == "reset":
            assert request.transport
            at_once = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, at_once
            )
            request.transport.abort()
        elif fault == "stall":
            await asyncio.sleep(3600)
        elif fault == "garbage":
            await response.write(b"<html>502 Bad Gateway</html>\n")
        elif fault == "not_json":
            await response.write(b"data: {not json}\n\n")
        elif fault == "huge_line":
            await response.write(b"data: " + b" " * (1 << 21))
        elif fault == "gave_up":
            await response.write(b'data: {"choices":[{"text":"","finish_reason":"timeout"}]}\n\n')
        elif fault == "error_event":
            await response.write(b"event: error\n: worker lost\n\n")
        elif fault == "error_object":
            await response.write(b'data: {"error":{"message":"worker lost"}}\n\n')
        return fault in ("half", "reset", "cut")


def _event(seen: Seen, text: str | None, usage: dict[str, int] | None) -> bytes:
    said = {"delta": {"role": "assistant", "content": text}} if seen.chat else {"text": text}
    choices = [] if text is None else [{"index": 0, "finish_reason": None} | said]
    event = {"id": "cmpl-1", "object": "text_completion", "model": MODEL, "choices": choices, "usage": usage}
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def _oddly(event: bytes) -> Iterator[bytes]:
    for byte in (b": still here\nid: 7\nretry: 10\nevent: message\n" + event).replace(b"\n", b"\r\n"):
        yield bytes([byte])
