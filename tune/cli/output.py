"""Print results: with colours on a terminal, and in any encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from typing import TextIO

from tune.core.log_text import plain_text

_ASCII = {"×": "x", "—": "-", "–": "-", "±": "+-", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "µ": "u"}
"""ASCII for characters that decomposition does not lead to."""

_ERRORS = "tune-ascii"


def make_streams_safe() -> None:
    """Let stdout and stderr print any text: what their encoding lacks is replaced by ASCII."""
    codecs.register_error(_ERRORS, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def show(text: str) -> None:
    """Print a result on stdout as plain text, with colours where it is a terminal that has them."""
    text = plain_text(text)
    if _has_colours(sys.stdout):
        from rich.console import Console

        from tune.cli.result_colours import coloured

        Console(highlight=False).print(coloured(text), soft_wrap=True)
    else:
        print(text)


def show_error(text: str) -> None:
    """Print an error on stderr as plain text, in red where it is a terminal with colours."""
    text = plain_text(text)
    if _has_colours(sys.stderr):
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True, highlight=False).print(Text(text, "red"), soft_wrap=True)
    else:
        print(text, file=sys.stderr)


def _has_colours(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with colours. Source: https://no-color.org for NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "dumb")


def _replacement(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII for characters that an encoding lacks, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(_ascii(character) for character in characters), error.end


def _ascii(character: str) -> str:
    """Return ASCII for one character: a likeness, its letter without accents, or a question mark."""
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _ASCII.get(character) or plain or "?"
