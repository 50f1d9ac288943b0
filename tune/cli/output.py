"""Print results, with colours on a terminal, errors and progress."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from typing import TextIO

from tune.core.log_text import plain_text

MIN_COLUMNS = 40
"""Least width at which lines are broken; a pseudo-terminal may state 0 columns."""


def show(text: str) -> None:
    """Print a result on stdout as plain text, with colours where it is a terminal that has them."""
    text = _fitting(plain_text(text), sys.stdout)
    if _has_colours(sys.stdout):
        from rich.console import Console

        from tune.cli.result_colours import coloured

        Console(highlight=False).print(coloured(text), soft_wrap=True)
    else:
        print(text)


def show_error(text: str) -> None:
    """Print an error on stderr as plain text, in red where it is a terminal with colours."""
    text = _fitting(plain_text(text), sys.stderr)
    if _has_colours(sys.stderr):
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True, highlight=False).print(Text(text, "red"), soft_wrap=True)
    else:
        print(text, file=sys.stderr)


_VALUE = re.compile(r" *\w[\w ]{0,9}? {2,}| +")
"""What stands before the value of a line: its label, or blanks."""


def _fitting(text: str, stream: TextIO) -> str:
    """Return `text` with lines that break between words, where `stream` is a terminal narrower than they are.

    A line that is to be pasted, a command or a setting, stays whole.
    """
    if not stream.isatty():
        return text
    columns = os.get_terminal_size(stream.fileno()).columns
    return "\n".join(_folded(line, columns) for line in text.split("\n"))


def _folded(line: str, columns: int) -> str:
    """Return a line in lines of at most `columns` characters, its value below itself."""
    if len(line) <= columns or "python -m tune" in line or re.search(r"\w[.\w]*=\S+$", line):
        return line
    before = _VALUE.match(line)
    return textwrap.fill(
        line,
        max(columns, MIN_COLUMNS),
        subsequent_indent=" " * (len(before[0]) if before else 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_progress(line: str) -> None:
    """Print a line on stderr, above what is drawn there."""
    print(line, file=sys.stderr, flush=True)


def _has_colours(stream: TextIO) -> bool:
    """Return whether a stream is a terminal with colours. Source: https://no-color.org for NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "dumb")
