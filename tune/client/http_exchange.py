"""One HTTP/1.1 exchange over a connection of its own: a request out, the answer in as its socket is read.

Plain asyncio: every piece goes to the answer in the callback that read it, without a task to wake for each
token. Source of the form: RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tune.client.sse_response import StreamedResponse

Clock = Callable[[], int]
"""Nanoseconds of a monotonic clock."""

_LONGEST_HEAD_BYTES = 1 << 16
_LONGEST_SIZE_LINE_BYTES = 1 << 10
_ERROR_TEXT_BYTES = 400


class Body(Protocol):
    """What follows the head of an answer. `whole`: all of it came, or it ends with the connection."""

    whole: bool

    def feed(self, data: bytes) -> bytes:
        """The part of the body in `data`. Raises ValueError for what is no such body."""


class Chunked:
    """A body in chunks, each after its size in hexadecimal digits; trailers are ignored."""

    def __init__(self) -> None:
        self.whole = False
        self._tail, self._left = b"", 0  # bytes of an unfinished size line; of the chunk and its CRLF

    def feed(self, data: bytes) -> bytes:
        data, at, pieces = self._tail + data, 0, []
        end = len(data)
        while at < end and not self.whole:
            if not self._left:
                line_end = data.find(b"\r\n", at)
                if line_end < 0:
                    break
                size = _size(data[at:line_end])
                at, self.whole, self._left = line_end + 2, size == 0, size + 2
                continue
            taken = min(self._left, end - at)
            if self._left > 2:
                pieces.append(data[at : at + min(taken, self._left - 2)])
            at, self._left = at + taken, self._left - taken
        self._tail = data[at:]
        if len(self._tail) > _LONGEST_SIZE_LINE_BYTES and not self.whole:
            raise ValueError(f"a chunk without a size: {_line(self._tail)}")
        return b"".join(pieces)


class Counted:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.whole = length == 0

    def feed(self, data: bytes) -> bytes:
        taken = data[: self._left]
        self._left -= len(taken)
        self.whole = self._left == 0
        return taken


class UntilClosed:
    """A body that ends with its connection."""

    whole = True

    def feed(self, data: bytes) -> bytes:
        return data


def read_head(head: bytes) -> tuple[int, Body]:
    """Status and body of an answer, from its head without the empty line. Raises ValueError for another."""
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
        raise ValueError(f"no HTTP/1.1: {_line(first)}")
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)
    }
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        return int(rest[:3]), Chunked()
    length = fields.get(b"content-length")
    if length is None:
        return int(rest[:3]), UntilClosed()
    if not length.isdigit() or len(length) > 18:
        raise ValueError(f"Content-Length is {_line(length)}")
    return int(rest[:3]), Counted(int(length))


class Exchange(asyncio.Protocol):
    """Sends `request` once connected and feeds `answer` with what comes, until it is over.

    `on_first_token` is called in the read that brought the first token. `ended` is done when nothing more
    comes; what went wrong is the answer's error, and what our own code raised is raised by `ended`.
    """

    def __init__(
        self, request: bytes, answer: StreamedResponse, clock: Clock, on_first_token: Callable[[], None]
    ) -> None:
        self._request, self._answer, self._clock, self._begin = request, answer, clock, on_first_token
        self._head, self._status, self._error_text = b"", 0, b""
        self._body: Body | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._take(data, self._clock())
        except BaseException as error:
            self._end(error)
        if self._answer.finished:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        reason = f"{type(error).__name__} {error}" if error else "the connection was closed"
        if self._body is None:
            self._answer.fail(f"connection: {reason} before the head of an answer")
        elif self._status != 200:
            self._fail_by_status()
        elif error or not self._body.whole:
            self._answer.fail(f"cut: {reason} in the middle of an answer")
        self._answer.close()
        self._end(None)

    def _take(self, data: bytes, read_ns: int) -> None:
        try:
            if self._body is None:
                data = self._take_head(data)
            piece = self._body.feed(data) if self._body else b""
        except ValueError as error:
            self._answer.fail(f"{'cut' if self._body else 'connection'}: {error}")
            return
        if not self._body:
            return
        if self._status != 200:
            self._error_text += piece
            if len(self._error_text) >= _ERROR_TEXT_BYTES or self._ends():
                self._fail_by_status()
            return
        began = self._answer.first_token_ns >= 0
        self._answer.feed(piece, read_ns)
        if self._answer.first_token_ns >= 0 and not began:
            self._begin()
        if self._ends():
            self._answer.close()

    def _ends(self) -> bool:
        return self._body is not None and self._body.whole and not isinstance(self._body, UntilClosed)

    def _take_head(self, data: bytes) -> bytes:
        """Read the head when all of it came; returns what follows it. Interim answers (1xx) are skipped."""
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            status, body = read_head(head)
            if status >= 200:
                self._status, self._body = status, body
                return self._head
        if len(self._head) > _LONGEST_HEAD_BYTES:
            raise ValueError("a head of more than 64 KiB")
        return b""

    def _fail_by_status(self) -> None:
        self._answer.fail(f"http {self._status}: {_line(self._error_text)}")

    def _end(self, fault: BaseException | None) -> None:
        if self.ended.done():
            return
        self._transport.close()
        if fault:
            self.ended.set_exception(fault)
        else:
            self.ended.set_result(None)


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not 0 < len(digits) <= 15 or digits.strip(b"0123456789abcdefABCDEF"):
        raise ValueError(f"a chunk without a size: {_line(line)}")
    return int(digits, 16)


def _line(found: bytes) -> str:
    return " ".join(found[:_ERROR_TEXT_BYTES].decode("utf-8", "replace").split())[:200]
