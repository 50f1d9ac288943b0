"""Read one streamed answer as server-sent events. Pure: takes bytes and times, yields facts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

_MAX_LINE_BYTES = 1 << 20
_IGNORED_FIELDS = (b"id:", b"retry:", b"event:")
_FAILED_FINISH_REASONS = ("error", "cancelled", "timeout", "abort", "content_filter")
"""Values of finish_reason of an answer that its engine abandoned.

Sources: OpenAI, TensorRT-LLM, vLLM, SGLang, Dynamo.
"""

_CHAT_TEXT_FIELDS = ("content", "reasoning", "reasoning_content")
"""Fields of a chat's delta that hold generated text; an answer that thinks begins with its thoughts.

Sources: OpenAI (content), DeepSeek's API, TensorRT-LLM, SGLang (reasoning_content), vLLM (reasoning).
"""

_TOKEN_COUNT_LIMIT = 1 << 31


@dataclass
class StreamedResponse:
    """Hold the received part of an answer; times in ns, -1 for an event that has not happened.

    `sent_ns` is the time at which the request was written to its connection.
    `first_token_ns` is the time of the read with the first non-empty delta. `output_tokens` and
    `prompt_tokens` come from the answer's usage, never from counting events: engines pack several tokens into
    one. `pieces` collects the text of the answer where it is a list. An answer with fewer than
    `min_output_tokens` or more than `max_output_tokens` tokens is an error, and so is one to a prompt of
    fewer than `sent_tokens` tokens. Source of the form: OpenAI's completions and chat completions, streamed
    with stream_options.include_usage.
    """

    first_token_ns: int = -1
    done_ns: int = -1
    output_tokens: int = 0
    error: str = ""
    prompt_tokens: int = 0
    sent_tokens: int = 0
    min_output_tokens: int = 1
    max_output_tokens: int = sys.maxsize
    pieces: list[str] | None = None
    sent_ns: int = -1
    _has_usage: bool = field(default=False, repr=False)
    _tail: bytes = field(default=b"", repr=False)

    @property
    def finished(self) -> bool:
        """Return True when nothing more is to be read: the end was seen, or an error."""
        return self.done_ns >= 0 or self.error != ""

    def feed(self, data: bytes, read_ns: int) -> None:
        """Read the bytes of one read of the socket at `read_ns`; what follows the end is ignored."""
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            if self.finished:
                return
            self._read_line(line.rstrip(b"\r"), read_ns)
        if len(self._tail) > _MAX_LINE_BYTES:
            self._fail("garbage: a line of more than 1 MiB")

    def close(self) -> None:
        """Note the end of the connection: an unfinished answer is cut."""
        if not self.finished:
            position = "after its first token" if self.first_token_ns >= 0 else "before its first token"
            self._fail(f"cut: the stream ended {position}, without [DONE]")

    def fail(self, error: str) -> None:
        """Note a fault outside the stream: a status, a time-out, a lost connection."""
        if not self.finished:
            self._fail(error)

    def _fail(self, error: str) -> None:
        """Make the answer an error without times of its end and without tokens."""
        self.error, self.done_ns, self.output_tokens = error, -1, 0

    def _read_line(self, line: bytes, read_ns: int) -> None:
        """Read one line of the stream."""
        if not line:
            return
        if line.startswith(b"data:"):
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self._finish(read_ns)
            else:
                self._read_event(payload, read_ns)
        elif line.startswith(b"event:") and line[6:].strip() == b"error":
            self._fail("server: an error event in the stream")
        elif not line.startswith((b":", *_IGNORED_FIELDS)):
            self._fail(f"garbage: {_short(line)}")

    def _read_event(self, payload: bytes, read_ns: int) -> None:
        """Read the JSON of one event."""
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
        if choice.get("finish_reason") in _FAILED_FINISH_REASONS:
            self._fail(f"server: the answer finished with finish_reason {choice['finish_reason']}")
            return
        if self.first_token_ns < 0 and _has_text(choice):
            self.first_token_ns = read_ns
        if self.pieces is not None:
            self.pieces += _texts(choice)
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._has_usage = True
            self.output_tokens = _count(usage, "completion_tokens")
            self.prompt_tokens = _count(usage, "prompt_tokens")

    def _finish(self, read_ns: int) -> None:
        """Finish at [DONE], with an error where the answer lacks something."""
        if self.first_token_ns < 0:
            self._fail("empty: [DONE] without any text")
        elif not self._has_usage:
            self._fail("no usage: [DONE] without a token count")
        elif self.output_tokens < 1:
            self._fail("no tokens: usage.completion_tokens is no number from 1 to 2^31")
        elif self.output_tokens < self.min_output_tokens:
            self._fail(
                f"short: usage counts {self.output_tokens} tokens, {self.min_output_tokens} were asked for"
            )
        elif self.output_tokens > self.max_output_tokens:
            self._fail(
                f"long: usage counts {self.output_tokens} tokens, {self.max_output_tokens} were allowed"
            )
        elif 0 < self.prompt_tokens < self.sent_tokens:
            self._fail(f"prompt cut: usage counts {self.prompt_tokens} tokens, {self.sent_tokens} were sent")
        else:
            self.done_ns = read_ns


def _first_choice(event: dict[str, Any]) -> dict[str, Any]:
    """Return the first choice of an event, empty where it has none."""
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _has_text(choice: dict[str, Any]) -> bool:
    """Return True for a non-empty text: of a completion, or of a chat's content or reasoning."""
    return any(_texts(choice))


def _texts(choice: dict[str, Any]) -> list[str]:
    """Return the texts of an event: of a completion, or of a chat's content and reasoning."""
    delta = choice.get("delta")
    texts = map(delta.get, _CHAT_TEXT_FIELDS) if isinstance(delta, dict) else (choice.get("text"),)
    return [text for text in texts if isinstance(text, str)]


def _count(usage: dict[str, Any], name: str) -> int:
    """Return a number of tokens, 0 where the server states none in range."""
    value = usage.get(name)
    return value if type(value) is int and 0 < value < _TOKEN_COUNT_LIMIT else 0


def _short(text: bytes) -> str:
    """Return at most 120 bytes of `text` as a string."""
    return text[:120].decode("utf-8", "replace")
