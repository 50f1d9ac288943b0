"""Test how the load client spreads requests over the frontends of a deployment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from support.right_client import client_command, make_settings, run_command
from support.streaming_server import StreamingServer

from tune.client.frontends import Frontends
from tune.client.sse_response import StreamedResponse

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class HeldFrontends:
    """Serve as frontends that answer no request before it is released, in the loop of the test."""

    def __init__(self, count: int) -> None:
        self.asked: list[int] = []
        self._count = count
        self._held: list[asyncio.Event] = []
        self._news = asyncio.Condition()

    async def start(self, stack: AsyncExitStack) -> list[str]:
        """Listen; return the URLs."""
        urls = []
        for index in range(self._count):
            server = await asyncio.start_server(self._handler(index), "127.0.0.1", 0)
            await stack.enter_async_context(server)
            urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        return urls

    def _handler(self, index: int) -> Handler:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            released = asyncio.Event()
            async with self._news:
                self.asked.append(index)
                self._held.append(released)
                self._news.notify_all()
            await released.wait()
            writer.close()

        return handle

    async def wait_for(self, requests: int) -> None:
        """Return once so many requests have arrived."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.asked) >= requests)

    def release(self, request: int) -> None:
        """Answer one request, in the order of their arrival: the connection is closed."""
        self._held[request].set()


async def choices(choice: str, prompts: Sequence[int], answered_after: dict[int, int]) -> list[int]:
    """Send prompts of these lengths one after the other; return the frontend of each.

    `answered_after[n]` is the request that is answered before the n-th is sent.
    """
    held = HeldFrontends(3)
    async with AsyncExitStack() as stack:
        urls = await held.start(stack)
        frontends = Frontends(make_settings(endpoint_urls=urls, frontend_choice=choice), time.monotonic_ns)
        requests: list[asyncio.Task[None]] = []
        for number, tokens in enumerate(prompts):
            if number in answered_after:
                held.release(answered_after[number])
                await requests[answered_after[number]]
            sending = frontends.request(b"{}", tokens, StreamedResponse(), lambda: None)
            requests.append(asyncio.create_task(sending))
            await held.wait_for(number + 1)
        for number in range(len(prompts)):
            held.release(number)
        await asyncio.gather(*requests)
        await frontends.close()
    return held.asked


def test_frontends_are_used_in_turn() -> None:
    assert asyncio.run(choices("round_robin", [900, 1, 1, 1, 1, 1], {})) == [0, 1, 2, 0, 1, 2]


def test_the_frontend_with_the_fewest_unanswered_prompt_tokens_is_chosen() -> None:
    chosen = asyncio.run(choices("fewest_input_tokens", [900, 500, 300, 100, 50, 40, 1], {6: 0}))
    assert chosen == [0, 1, 2, 2, 2, 2, 0], "the first is free again once its answer has ended"


def test_equally_loaded_frontends_are_used_in_turn() -> None:
    assert asyncio.run(choices("fewest_input_tokens", [7] * 6, {})) == [0, 1, 2, 0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["round_robin", "fewest_input_tokens"])
def test_a_run_spreads_over_all_frontends(tmp_path: Path, choice: str) -> None:
    with StreamingServer() as first, StreamingServer() as second:
        changes = {"endpoint_urls": [first.url, second.url], "frontend_choice": choice}
        process = run_command(client_command(tmp_path, **changes))
    assert process.returncode == 0, process.stderr
    assert len(first.seen) + len(second.seen) > 100
    assert min(len(first.seen), len(second.seen)) > 40


@pytest.mark.slow
def test_a_run_needs_every_frontend(tmp_path: Path) -> None:
    with StreamingServer() as server:
        process = run_command(client_command(tmp_path, endpoint_urls=[server.url, "http://127.0.0.1:9/v1"]))
    assert process.returncode == 3
    assert "expected the model 'llama' at http://127.0.0.1:9/v1" in process.stderr
