"""Read what `tune` with cluster=slurm left in a folder where a test started it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from support.slurm_rack import SlurmRack
from support.waiting import wait_for
from tune.records.attempt_record import AttemptRecord
from tune.records.folders import read_attempt


def attempts(folder: Path) -> list[Path]:
    """Return the folders of all attempts of all studies."""
    return sorted(path for path in folder.glob("runs/*/*/raw/*") if path.is_dir())


def record(attempt: Path) -> AttemptRecord:
    found = read_attempt(attempt)
    assert found is not None, f"no attempt.json in {attempt}"
    return found


def outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/*/outcome.json"))]


def job_ids(folder: Path) -> list[str]:
    """Return the ids of all submitted Slurm jobs, in order."""
    paths = sorted(folder.glob("runs/*/jobs/*/job.json"), key=lambda path: int(path.parent.name))
    return [str(json.loads(path.read_text())["job_id"]) for path in paths]


def asking(folder: Path) -> int:
    """Return how many load clients have begun to send requests."""
    return sum("queries over" in log.read_text() for log in folder.glob("runs/*/*/raw/*/logs/*client.out"))


def await_asking(folder: Path, count: int = 1) -> None:
    wait_for(lambda: asking(folder) >= count)


def kill_on(slurm: SlurmRack, node: str, part: str) -> None:
    """Kill the oldest process on `node` whose command line contains `part`.

    An srun has a second process, which looks after the step once the first is gone.
    """
    found = [process for process, command in slurm.processes(node).items() if part in command]
    assert found, f"nothing like {part!r} on {node}: {slurm.processes(node)}"
    os.kill(min(found), signal.SIGKILL)
