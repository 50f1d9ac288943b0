"""Colour the lines of a result by their labels; the verdict stands out."""

from __future__ import annotations

import re

from rich.text import Text

_LABEL = re.compile(r"(\w[\w ]{0,9}?)(?: {2,}|:(?= ))")
"""A label in the first ten columns of a line, as tune/report/terminal.py writes it."""

_SPLIT = re.compile(r"\d+P\d+D")

_VERDICTS = (
    ("holds its SLO in", "bold cyan"),
    ("holds", "bold green"),
    ("SLO violated", "bold red"),
    ("failed", "bold red"),
)
_OTHER_VERDICT = "bold yellow"

_COMMAND = "cyan"

_VALUES = {
    **dict.fromkeys(("again", "try", "run it", "use", "open", "record", "report"), _COMMAND),
    **dict.fromkeys(("output", "best", "confirm"), "bold"),
    "warning": "yellow",
    "error": "red",
}
"""Styles of the values of a label; the others are plain."""


def coloured(text: str) -> Text:
    """Return the lines of a result with styles; the text is unchanged."""
    return Text("\n").join([_line(line) for line in text.split("\n")])


def _line(line: str) -> Text:
    """Return one line with the styles of its label and its value; the head of a trial is bold."""
    drawn = Text(line)
    label = _LABEL.match(line)
    if label is None:
        return drawn
    name, start = label[1], label.end()
    if name == "verdict":
        value = line[start:]
        style = next((style for words, style in _VERDICTS if value.startswith(words)), _OTHER_VERDICT)
        drawn.stylize(style, start)
    elif _SPLIT.fullmatch(name):
        drawn.stylize("bold")
        return drawn
    elif name in _VALUES:
        drawn.stylize(_VALUES[name], start)
    drawn.stylize("dim", 0, label.end(1))
    return drawn
