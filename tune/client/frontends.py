"""Spread requests over the frontends of a deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tune.client.client_settings import ClientSettings
from tune.client.endpoint import Endpoint
from tune.client.http_exchange import Clock
from tune.client.sse_response import StreamedResponse


class Frontends:
    """Hold the connections to every frontend and choose one for each request.

    The choice is `settings.frontend_choice`. Prompt tokens count for a frontend from the choice to the end of
    the answer; of frontends with equally many the next in turn is chosen.
    """

    def __init__(self, settings: ClientSettings, clock: Clock, spares: int = 0) -> None:
        self._endpoints = [Endpoint(settings, url, clock, spares) for url in settings.endpoint_urls]
        self._input_tokens = [0] * len(self._endpoints)
        self._by_tokens = settings.frontend_choice == "fewest_input_tokens"
        self._next = 0

    async def request(
        self,
        body: bytes,
        input_tokens: int,
        response: StreamedResponse,
        on_first_token: Callable[[], None],
    ) -> None:
        """Send `body`, whose prompt has `input_tokens`, and read the answer into `response` until it ends.

        A fault becomes `response.error`. `on_first_token` is called once, in the read that brings the first
        non-empty delta.
        """
        chosen = self._choose()
        self._input_tokens[chosen] += input_tokens
        try:
            await self._endpoints[chosen].request(body, response, on_first_token)
        finally:
            self._input_tokens[chosen] -= input_tokens

    async def close(self) -> None:
        """Close the connections that no request has used."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints))

    def _choose(self) -> int:
        """Return the index of the frontend for the next request."""
        count = len(self._endpoints)
        in_turn = [(self._next + step) % count for step in range(count)]
        chosen = min(in_turn, key=self._input_tokens.__getitem__) if self._by_tokens else in_turn[0]
        self._next = (chosen + 1) % count
        return chosen
