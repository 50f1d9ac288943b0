"""Test what is printed on a terminal, into a pipe, and in an encoding that lacks characters."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.cli.standard_streams import make_streams_safe

CODE = """
from tune.cli.output import show, show_error
from tune.cli.standard_streams import make_streams_safe
make_streams_safe()
show("verdict   holds its SLO: 4.15 s \\u00b1 0.17 s \\u2264 Gr\\u00fc\\u00dfe \\u6771 \\udcff")
show_error("wro\\x1b[2Jng")
"""


def on_terminal(code: str = CODE, columns: int = 120, **environment: str) -> str:
    """Return what a terminal of `columns` receives."""
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (24, columns))
    environment = {name: text for name, text in os.environ.items() if name != "NO_COLOR"} | environment
    subprocess.run([sys.executable, "-c", code], stdout=inner, stderr=inner, env=environment, check=True)
    os.close(inner)
    received = os.read(outer, 65536).decode()
    os.close(outer)
    return received


@pytest.mark.slow
def test_long_lines_break_between_words_on_a_terminal_and_commands_stay_whole() -> None:
    words = "next      " + "Another trial is expected to raise the best rate. " * 3
    command = "again     python -m tune " + "decode.max_batch_size=256 " * 5
    code = f"from tune.cli.output import show; show({words!r}); show({command!r})"
    screen = on_terminal(code, TERM="dumb", columns=60).replace("\r", "")
    *lines, last = screen.rstrip("\n").split("\n")
    assert last == command
    assert max(map(len, lines)) <= 60
    assert " ".join(line.strip() for line in lines) == words.strip()
    assert all(line.startswith(" " * 10) and line[10] != " " for line in lines[1:])
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert piped == f"{words}\n{command}\n"


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


def run_shell(redirections: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a short trial, of which another run finds the record, with redirections of the shell."""
    words = shlex.join([sys.executable, "-m", "tune", "load.min_duration_s=60"])
    return subprocess.run(
        ["bash", "-c", f"{words} {redirections}"], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["> /dev/full", "<&- >&- 2>&-"])
def test_output_that_goes_nowhere_costs_no_trial(redirections: str, tmp_path: Path) -> None:
    first = run_shell(redirections, tmp_path)
    lost = "standard output: No space left on device; some of what was printed is lost." in first.stderr
    assert (first.returncode, lost) == ((3, True) if "full" in redirections else (0, False))
    again = run_shell("", tmp_path)
    assert again.returncode == 0
    assert "(on record; rerun=true measures again)" in again.stdout


@given(st.text())
def test_any_text_has_an_ascii_form(text: str) -> None:
    make_streams_safe()
    assert text.encode("ascii", "tune-ascii").isascii()
