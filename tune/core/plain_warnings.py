"""Print warnings of Python as lines in words, without the place in the code."""

from __future__ import annotations

import warnings


def show_plain_warnings() -> None:
    """Print each warning of this process as "warning: ..." on stderr from now on."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
