"""Print results, with colours on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from tune.core.log_text import plain_text


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
