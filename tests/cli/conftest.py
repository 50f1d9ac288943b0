"""Start the command line as a process, and find nothing that it started left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.command_line import Tune
from support.local_trials import Start, require_ended


@pytest.fixture
def tune(tmp_path: Path) -> Tune:
    """Run `python -m tune` to its end in a folder of its own."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tune", *words],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m tune` in a folder of its own; afterwards no process of it may be alive."""
    with ExitStack() as stack:

        def begin(*words: str) -> subprocess.Popen[str]:
            return stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tune", *words],
                    cwd=tmp_path,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )

        yield begin
        require_ended(tmp_path)
