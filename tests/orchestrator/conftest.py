"""Make trials of fake processes and the folder of a job for the tests of the orchestrator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.fake_deployment import MakeTrial, Trial


@pytest.fixture
def make_trial(tmp_path: Path) -> Iterator[MakeTrial]:
    """Yield a maker of trials with fake processes; kill what a failed test leaves running."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Trial:
            trial = Trial(tmp_path / str(time.monotonic_ns()), **changes)
            stack.callback(trial.kill_all)
            return trial

        yield make


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return the folder of a study's first Slurm job."""
    folder = tmp_path / "study" / "jobs" / "1"
    folder.mkdir(parents=True)
    return folder
