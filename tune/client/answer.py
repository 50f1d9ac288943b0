"""One streamed answer, read as server-sent events. Pure: bytes and times in, facts out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

_LONGEST_LINE_BYTES = 1 << 20
_QUIET_FIELDS = (b"id:", b"retry:", b"event:")


@dataclass
class Answer:
    """What is known of an answer so far; times in ns, -1 where nothing came.

    `first_token_ns` is the read that brought the first non-empty delta. `output_tokens` comes from the
    answer's usage, never from counting events: engines pack several tokens into one.
    Source of the form: OpenAI's completions API, streamed with stream_options.include_usage.
    """

    first_token_ns: int = -1
    done_ns: int = -1
    output_tokens: int = 0
    error: str = ""
    _usage: bool = field(default=False, repr=False)
    _tail: bytes = field(default=b"", repr=False)

    @property
    def over(self) -> bool:
        """True when nothing more is to be read: the end was seen, or an error."""
        return self.done_ns >= 0 or self.error != ""

    def feed(self, data: bytes, read_ns: int) -> None:
        """Take what one read of the socket at `read_ns` brought; what follows the end is ignored."""
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            if self.over:
                return
            self._take(line.rstrip(b"\r"), read_ns)
        if len(self._tail) > _LONGEST_LINE_BYTES:
            self._fail("garbage: a line of more than 1 MiB")

    def close(self) -> None:
        """The connection ended: an answer that had not is cut."""
        if not self.over:
            came = "after its first token" if self.first_token_ns >= 0 else "before its first token"
            self._fail(f"cut: the stream ended {came}, without [DONE]")

    def fail(self, error: str) -> None:
        """Note what went wrong outside the stream: a status, a time-out, a lost connection."""
        if not self.over:
            self._fail(error)

    def _fail(self, error: str) -> None:
        self.error, self.done_ns, self.output_tokens = error, -1, 0

    def _take(self, line: bytes, read_ns: int) -> None:
        if not line:
            return
        if line.startswith(b"data:"):
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self._finish(read_ns)
            else:
                self._read(payload, read_ns)
        elif line.startswith(b"event:") and line[6:].strip() == b"error":
            self._fail("server: an error event in the stream")
        elif not line.startswith((b":", *_QUIET_FIELDS)):
            self._fail(f"garbage: {_short(line)}")

    def _read(self, payload: bytes, read_ns: int) -> None:
        try:
            event = from_json(payload)  # four times as fast as json.loads, on the hottest line of the client
        except ValueError:
            event = None
        if not isinstance(event, dict):
            self._fail(f"garbage: {_short(payload)}")
            return
        if event.get("error"):
            self._fail(f"server: {_short(json.dumps(event['error']).encode())}")
            return
        choice = _first_choice(event)
        if choice.get("finish_reason") == "error":
            self._fail("server: the answer finished with finish_reason error")
            return
        text = choice.get("text")
        if self.first_token_ns < 0 and isinstance(text, str) and text:
            self.first_token_ns = read_ns
        usage = event.get("usage")
        if isinstance(usage, dict):
            tokens = usage.get("completion_tokens")
            self._usage = True
            self.output_tokens = tokens if type(tokens) is int else 0

    def _finish(self, read_ns: int) -> None:
        if self.first_token_ns < 0:
            self._fail("empty: [DONE] without any text")
        elif not self._usage:
            self._fail("no usage: [DONE] without a token count")
        elif self.output_tokens < 1:
            self._fail("no tokens: usage.completion_tokens is no positive number")
        else:
            self.done_ns = read_ns


def _first_choice(event: dict[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _short(found: bytes) -> str:
    return found[:120].decode("utf-8", "replace")
