"""Inject faults into a study on the simulated rack at moments of it, and check that nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from support.fake_clock import faked_clock
from support.fault_injections import allow_writing, fill_disk, jump, make_read_only
from support.slurm_rack import command_line, commands_with
from support.waiting import wait_for

Moment = Literal["begun", "in a trial", "after a trial"]
"""`begun`: study.json is there. `in a trial`: its first attempt runs. `after a trial`: it has an outcome."""

MOMENTS: tuple[Moment, ...] = get_args(Moment)
_SIGNS: dict[Moment, str] = {
    "begun": "study.json",
    "in a trial": "*/raw/*",
    "after a trial": "*/outcome.json",
}

KILLS = 20
"""Random points of a study at which its driver is killed."""

STUDY = (
    *("+sweep=pd_split", "study.name=cut", "study.n_trials=3"),
    *("load.min_duration_s=60.0", "load.concatenate_permutation=false"),
)


@dataclass
class SimulatedCell:
    """Run a study in `folder`; `environment` is added to that of its driver."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    said: str = ""

    def command(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tune", *STUDY],
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, driver: subprocess.Popen[str]) -> int:
        """Wait for a command; return its exit code."""
        self.said += driver.communicate(timeout=240)[0]
        return driver.returncode

    def reaches(self, moment: Moment) -> bool:
        return any((self.folder / "runs" / "cut").glob(_SIGNS[moment]))

    def ranking(self) -> bytes:
        return (self.folder / "reports" / "cut" / "ranking.json").read_bytes()

    def outcomes(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.glob("runs/cut/*/outcome.json")}


SimulatedInject = Callable[[SimulatedCell, "subprocess.Popen[str]"], None]


@dataclass(frozen=True)
class SimulatedFault:
    """Describe a fault, and the exit code of the command that meets it; None where that is killed."""

    name: str
    inject: SimulatedInject
    exit_code: int | None
    fakes_clock: bool = False


def _kill_driver(cell: SimulatedCell, driver: subprocess.Popen[str]) -> None:
    driver.kill()


def _kill_worker(cell: SimulatedCell, driver: subprocess.Popen[str]) -> None:
    """Kill a process that simulates."""
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")

    def simulators() -> list[int]:
        return [
            child for child in map(int, children.read_text().split()) if "spawn_main" in command_line(child)
        ]

    wait_for(simulators)
    os.kill(simulators()[0], signal.SIGKILL)


def _start_second_driver(cell: SimulatedCell, driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGSTOP)  # else the study may end before the second one asks
    second = cell.command()
    said = second.communicate(timeout=120)[0]
    driver.send_signal(signal.SIGCONT)
    assert second.returncode == 2, said
    assert "another process is running this study" in said


SIMULATED_FAULTS = (
    SimulatedFault("driver killed", _kill_driver, None),
    SimulatedFault("simulator killed", _kill_worker, 0),
    SimulatedFault("disk full", fill_disk, 3),
    SimulatedFault("folder read-only", make_read_only, 2),
    SimulatedFault("driver's clock ahead", jump(7200), 0, fakes_clock=True),
    SimulatedFault("driver's clock back", jump(-7200), 0, fakes_clock=True),
    SimulatedFault("second driver", _start_second_driver, 0),
)


def run_simulated_cell(cell: SimulatedCell, fault: SimulatedFault, moment: Moment, unbroken: bytes) -> None:
    """Run the study with the fault at the moment, then its command again; check that it ends so."""
    if fault.fakes_clock:
        cell.environment |= faked_clock(cell.folder)
    driver = cell.command()
    wait_for(lambda: cell.reaches(moment) or driver.poll() is not None)
    assert driver.poll() is None, cell.end(driver)
    fault.inject(cell, driver)
    code = cell.end(driver)
    assert code == (-signal.SIGKILL if fault.exit_code is None else fault.exit_code), cell.said
    (cell.folder / "filler").unlink(missing_ok=True)
    allow_writing(cell.folder)
    resume_to_the_end(cell, unbroken)


def kill_at_random(cell: SimulatedCell, number: int, takes_s: float, unbroken: bytes) -> None:
    """Kill the driver at a point of a study that takes `takes_s`, the same for equal `number`; go on."""
    driver = cell.command()
    time.sleep(takes_s * (number + random.Random(number).random()) / KILLS)
    driver.kill()
    cell.end(driver)
    resume_to_the_end(cell, unbroken)


def resume_to_the_end(cell: SimulatedCell, unbroken: bytes) -> None:
    """Run the command to its end; check that nothing on record changed and nothing is missing or left."""
    before = cell.outcomes()
    assert cell.end(cell.command()) == 0, cell.said
    after = cell.outcomes()
    assert all(after[path] == content for path, content in before.items()), "a recorded outcome changed"
    assert cell.ranking() == unbroken, "the ranking is that of a study that nothing met"
    assert not list(cell.folder.glob("runs/**/*.tmp")), "no temporary file is left"
    wait_for(lambda: not commands_with(str(cell.folder)))
