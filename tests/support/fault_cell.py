"""Run one trial on the tests' Slurm, hold it at a stage, and start its command again.

Slurm, orchestrator, LoadGen and load client are real; the deployment is made of stand-ins (fake_dynamo.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from support.slurm_conf import COUNT
from support.slurm_rack import SlurmRack, commands_with
from support.slurm_runs import asking, attempts, job_ids
from support.slurm_trials import small, stubbed
from support.waiting import wait_for
from tune.records.folders import StudyFolder, has_ended
from tune.records.outcome import Outcome

Stage = Literal["submitting", "queued", "starting", "warm-up", "probing", "draining", "recording"]
"""`submitting`: sbatch runs. `queued`: the job waits for nodes. `starting`: workers read their weights.
`warm-up`: its last requests are not answered to the end. `probing`: LoadGen issues queries. `draining`: the
client has ended, and workers hold requests. `recording`: the attempt has ended, and the driver has not
collected it."""

STAGES: tuple[Stage, ...] = get_args(Stage)
RUNNING: tuple[Stage, ...] = ("starting", "warm-up", "probing", "draining")

HELD = "cluster.deadlines.stop_s=90.0"
"""How long a trial stays in its warm-up, or drains, while workers hold requests: longer than faults take."""

_SBATCH = """\
case " $* " in *" --test-only "*) exec $REAL "$@";; esac
unset LD_PRELOAD
: >{folder}/submitting
while [ -e {folder}/gate ]; do sleep 0.02; done
[ -e {folder}/answer ] && mv {folder}/answer {folder}/answered && . {folder}/answered
exec $REAL "$@"
"""
"""What stands for sbatch: it waits as long as there is `gate`, does once what is in `answer`, and then what
sbatch does. The clock of the driver is not that of its jobs."""


@dataclass
class Cell:
    """Run one trial in `folder`, on `rack`, that a fault meets.

    `tree`: the checkout whose `tune` runs, None for that of the tests. A command is waited for `patience_s`.
    """

    rack: SlurmRack
    folder: Path
    tree: Path | None = None
    patience_s: float = 240
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        stubs = stubbed(self.folder / "stub")
        limits = ("cluster.deadlines.quiet_s=60.0", "load.response_timeout_s=10.0", HELD)
        self.words = (*self.rack.words, *small(), *stubs, *limits, "study.name=trial")
        self.programs = self.folder / "programs"
        self.programs.mkdir()
        self.replace("sbatch", _SBATCH.format(folder=self.folder))
        if self.tree:
            self.environment["PYTHONPATH"] = str(self.tree)

    @property
    def stub(self) -> Path:
        """Return the folder of the stand-ins."""
        return self.folder / "stub"

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.folder / "runs" / "trial")

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return self.study.outcomes()

    def command(self) -> subprocess.Popen[str]:
        """Start the command of the trial; programs of `programs` stand before those of the PATH."""
        path = {"PATH": f"{self.programs}:{os.environ['PATH']}"}
        driver = subprocess.Popen(
            [sys.executable, "-m", "tune", *self.words],
            cwd=self.folder,
            env=os.environ | self.rack.environment | path | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def end(self, driver: subprocess.Popen[str]) -> int:
        """Wait for a command; return its exit code."""
        try:
            self.said.append(driver.communicate(timeout=self.patience_s)[0])
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"the command did not end within {self.patience_s:g} s") from late
        return driver.returncode

    def replace(self, program: str, script: str) -> None:
        """Put a program of that name before the real one; `script` is sh, REAL the real program."""
        path, real = self.programs / program, shutil.which(program)
        path.write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
        path.chmod(0o755)

    def attempt(self) -> Path:
        """Return the last attempt."""
        return attempts(self.folder)[-1]

    def processes(self, part: str) -> list[int]:
        """Return the ids of processes of the trial with `part` in their command line, srun left out."""
        found = {process: text for process, text in commands_with(part).items() if str(self.folder) in text}
        return sorted(process for process, text in found.items() if Path(text.split()[0]).name != "srun")

    def release(self) -> None:
        """Let go what holds the trial at a stage."""
        for mark in (self.stub / "starting", self.stub / "holding", self.folder / "gate"):
            mark.unlink(missing_ok=True)


@contextmanager
def stage(cell: Cell, name: Stage) -> Iterator[subprocess.Popen[str]]:
    """Start the trial and keep it at a stage while the block runs; yield its driver."""
    gates = {"submitting": cell.folder / "gate", "starting": cell.stub / "starting"}
    held = gates | {"warm-up": cell.stub / "holding"}
    blocker = _occupy(cell.rack) if name == "queued" else None
    if name in held:
        held[name].touch()
    driver = cell.command()
    try:
        _await_stage(cell, name, driver)
        yield driver
    finally:
        cell.release()
        if blocker:
            cell.rack.run("scancel", blocker)
    if name == "recording" and driver.poll() is None:
        driver.send_signal(signal.SIGCONT)


def _await_stage(cell: Cell, name: Stage, driver: subprocess.Popen[str]) -> None:
    """Return when the trial is at the stage."""
    if name == "submitting":
        wait_for((cell.folder / "submitting").exists)
    elif name == "queued":
        wait_for(lambda: is_submitted(cell.folder))
    elif name == "starting":
        wait_for(lambda: logged(cell, "reading weights"))
    elif name == "warm-up":
        wait_for(lambda: answers(cell))
    else:
        wait_for(lambda: asking(cell.folder) >= 1)
    if name == "probing":
        of_warm_up = answers(cell)
        wait_for(lambda: answers(cell) > of_warm_up)
    if name == "draining":
        (cell.stub / "holding").touch()
        wait_for(lambda: any(cell.attempt().glob("probe-*/requests.npz")))
    if name == "recording":
        driver.send_signal(signal.SIGSTOP)
        wait_for(lambda: has_ended(cell.attempt()))


def _occupy(rack: SlurmRack) -> str:
    """Submit a job that takes every node; return its id when it runs."""
    job = rack.run(
        "sbatch", "--parsable", "--exclusive", f"-N{COUNT}", "--output=/dev/null", "--wrap", "sleep 900"
    )
    rack.wait(lambda: rack.run("squeue", "--noheader", "--states=RUNNING", "--format=%A").split(), 30, "job")
    return job.strip()


def is_submitted(folder: Path) -> bool:
    """Return whether the id of a job is on record; the record is there before sbatch, without an id."""
    return any(job.isdecimal() for job in job_ids(folder))


def logged(cell: Cell, words: str) -> int:
    """Return how often the logs of the attempt contain `words`."""
    logs = cell.folder.glob("runs/*/*/raw/*/logs/*")
    return sum(log.read_text(errors="replace").count(words) for log in logs)


def answers(cell: Cell) -> int:
    """Return how many completions the frontends have answered."""
    return logged(cell, "http response sent /v1/completions")
