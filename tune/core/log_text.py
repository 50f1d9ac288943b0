"""Make text of other programs safe to show: without escape sequences and control characters."""

from __future__ import annotations

import re

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequence, such as a colour
    r"|\x1b[\]PX^_][^\n]*?(?:\x07|\x1b\\|\x9c)"  # command string on one line, such as a window's title
    r"|\x1b[ -/]*[0-~]?"  # other escape sequence
)
_CONTROL = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}


def plain_text(text: str) -> str:
    """Return `text` without what a terminal would act on; tabs and line ends stay.

    A log that moves the cursor could otherwise overwrite what tune prints, and colours within a line hide
    words from patterns. Source: ECMA-48, 5.3 to 5.6.
    """
    return _ESCAPE_SEQUENCE.sub("", text).translate(_CONTROL)
