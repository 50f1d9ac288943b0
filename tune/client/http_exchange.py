"""Exchange one HTTP/1.1 request and its response over a connection of its own.

Plain asyncio: each piece of a body reaches the response in the callback that reads it from the socket,
without a task to wake for each token. llhttp, through httptools, parses heads and bodies. Source of the
form: RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from tune.client.sse_response import StreamedResponse

Clock = Callable[[], int]
"""Nanoseconds of a monotonic clock."""

_MAX_HEAD_BYTES = 1 << 16
_MAX_ERROR_TEXT_BYTES = 400
_HTTP_VERSIONS = ("1.1", "1.0")


class ResponseParser:
    """Parse the bytes of one HTTP response; what follows its end is ignored.

    Interim responses (1xx) are skipped. `status` is 0 before the head is complete. `complete` is True once
    the whole body is read. A body without a length ends with its connection: `ends_with_connection` is True.
    """

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.ends_with_connection = False
        self._parser = HttpResponseParser(self)
        self._head_bytes = 0
        self._has_length = False
        self._fault = ""
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body that `data` holds. Raises ValueError for an invalid response."""
        if self.complete:
            return b""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise ValueError("the server switches to another protocol") from None
        except HttpParserError as error:
            if not self.complete:
                raise ValueError(str(error)) from error
        if self._fault:
            raise ValueError(self._fault)
        if not self.status:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                raise ValueError("a head of more than 64 KiB")
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the body has a length; called by httptools for each field of the head."""
        field = name.lower()
        if field == b"content-length" or (
            field == b"transfer-encoding" and value.lower().endswith(b"chunked")
        ):
            self._has_length = True

    def on_headers_complete(self) -> None:
        """Note the status of a final response; called by httptools at the end of each head."""
        version, status = self._parser.get_http_version(), self._parser.get_status_code()
        if version not in _HTTP_VERSIONS:
            self._fault = f"no HTTP/1.1: HTTP/{version}"
        elif not self.status and status >= 200:
            self.status, self.ends_with_connection = status, not self._has_length
        self._has_length = False

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body; called by httptools."""
        if not self.complete:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """Note the end of a final response; called by httptools at the end of each response."""
        if self.status:
            self.complete, self.ends_with_connection = True, False


class Exchange(asyncio.Protocol):
    """Send `request` once connected and feed `response` with the body until it is finished.

    `on_first_token` is called in the read that brings the first token. `ended` is done when nothing more is
    read. What goes wrong on the connection becomes the error of `response`; an exception of the client's own
    code is raised by `ended`.
    """

    def __init__(
        self, request: bytes, response: StreamedResponse, clock: Clock, on_first_token: Callable[[], None]
    ) -> None:
        self._request, self._response, self._clock = request, response, clock
        self._on_first_token = on_first_token
        self._parser, self._error_text = ResponseParser(), b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._response.sent_ns = self._clock()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Read the received bytes, stamped with the time of this call."""
        try:
            self._read(data, self._clock())
        except Exception as error:  # asyncio would only log it: the request's future raises it
            self._end(error)
        if self._response.finished:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Finish the response: it fails unless its body ends with the connection."""
        if self.ended.done():
            return
        reason = f"{type(error).__name__} {error}" if error else "the connection was closed"
        if not self._parser.status:
            self._response.fail(f"connection: {reason} before the head of an answer")
        elif self._parser.status != 200:
            self._fail_by_status()
        elif error or not self._parser.ends_with_connection:
            self._response.fail(f"cut: {reason} in the middle of an answer")
        self._response.close()
        self._end(None)

    def _read(self, data: bytes, read_ns: int) -> None:
        parser, response = self._parser, self._response
        try:
            body = parser.feed(data)
        except ValueError as error:
            response.fail(f"{'cut' if parser.status else 'connection'}: {error}")
            return
        if parser.status == 200:
            waits = response.first_token_ns < 0
            response.feed(body, read_ns)
            if waits and response.first_token_ns >= 0:
                self._on_first_token()
            if parser.complete:
                response.close()
        elif parser.status:
            self._error_text += body
            if len(self._error_text) >= _MAX_ERROR_TEXT_BYTES or parser.complete:
                self._fail_by_status()

    def _fail_by_status(self) -> None:
        text = self._error_text[:_MAX_ERROR_TEXT_BYTES].decode("utf-8", "replace")
        self._response.fail(f"http {self._parser.status}: {' '.join(text.split())[:200]}")

    def _end(self, fault: BaseException | None) -> None:
        if self.ended.done():
            return
        self._transport.close()
        if fault:
            self.ended.set_exception(fault)
        else:
            self.ended.set_result(None)
