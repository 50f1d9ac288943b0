"""What is printed on a terminal, into a pipe, and in an encoding that lacks characters."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.cli.output import make_streams_safe

CODE = """
from tune.cli.output import make_streams_safe, show, show_error
make_streams_safe()
show("verdict   holds its SLO: 4.15 s \\u00b1 0.17 s \\u2264 Gr\\u00fc\\u00dfe \\u6771 \\udcff")
show_error("wro\\x1b[2Jng")
"""


def on_terminal(**environment: str) -> str:
    """Return what a terminal receives."""
    outer, inner = pty.openpty()
    environment = {name: text for name, text in os.environ.items() if name != "NO_COLOR"} | environment
    subprocess.run([sys.executable, "-c", CODE], stdout=inner, stderr=inner, env=environment, check=True)
    os.close(inner)
    received = os.read(outer, 65536).decode()
    os.close(outer)
    return received


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_encoding_without_a_character_gets_ascii(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"PYTHONIOENCODING": encoding, "LANG": "C"},
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode(encoding)
    assert "\x1b" not in text
    assert text.endswith("?\n")
    assert ("+- 0.17 s <= Gru?e" if encoding == "ascii" else "± 0.17 s <= Grüße") in text


@pytest.mark.slow
def test_terminal_gets_colours_unless_it_refuses_them() -> None:
    coloured = on_terminal(TERM="xterm-256color")
    assert "\x1b[1;32mholds its SLO" in coloured
    assert "\x1b[31mwrong" in coloured
    for refused in ({"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_terminal(**refused)


@given(st.text())
def test_any_text_has_an_ascii_form(text: str) -> None:
    make_streams_safe()
    assert text.encode("ascii", "tune-ascii").isascii()
