"""Inject faults into a trial on the tests' Slurm that is held at a stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from support.fake_clock import faked_clock, set_clock
from support.fault_cell import Cell
from support.slurm_conf import COUNT, PARTITION, URGENT
from support.slurm_rack import commands_with
from support.slurm_runs import attempts, job_ids, kill_on
from support.waiting import wait_for
from tune.records.folders import has_ended


class InFolder(Protocol):
    """Describe a cell of any kind: what it runs lies in its folder."""

    folder: Path


Inject = Callable[[Cell, "subprocess.Popen[str]"], None]
InjectAnywhere = Callable[[InFolder, "subprocess.Popen[str]"], None]
Prepare = Callable[[Cell], None]

WORKER, FRONTEND, NATS = "--disaggregation-mode decode", "dynamo.frontend", "nats-server"
NODE_OF_WORKER = "g02"
ETCD = "--listen-client-urls"
CLIENT, ORCHESTRATOR = "tune.client", "submitit.core._submit"

UNSAVED_S = 30.0
"""Seconds after which a controller that has saved nothing had nothing to save."""


def kill_driver(cell: Cell, driver: subprocess.Popen[str]) -> None:
    driver.kill()
    driver.wait()


def cancel(cell: Cell, _: subprocess.Popen[str]) -> None:
    cell.rack.run("scancel", *job_ids(cell.folder))
    if any((attempt / "nodes").exists() for attempt in attempts(cell.folder)):
        wait_for(lambda: not cell.rack.jobs())


def shorten_time_limit(cell: Cell, _: subprocess.Popen[str]) -> None:
    """Give the job one minute, the least there is; Slurm looks every 30 s whom to warn."""
    (job,) = job_ids(cell.folder)
    cell.rack.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
    wait_for(lambda: has_ended(cell.attempt()), 150)


def shorten_time_limit_of_run(cell: Cell, driver: subprocess.Popen[str]) -> None:
    """Keep workers from answering, so that the run lasts until the limit."""
    (cell.stub / "holding").touch()
    shorten_time_limit(cell, driver)


def preempt(cell: Cell, _: subprocess.Popen[str]) -> None:
    words = ("--exclusive", f"--nodes={COUNT}", "--output=/dev/null")
    cell.rack.run("sbatch", f"--partition={URGENT}", *words, "--wrap", "true")
    wait_for(lambda: has_ended(cell.attempt()))


def lose_node(cell: Cell, _: subprocess.Popen[str]) -> None:
    cell.rack.kill_node("g02")
    lost = cell.attempt()
    wait_for(lambda: has_ended(lost), 150)
    cell.rack.start_daemons()


def kill_worker_then_node(cell: Cell, _: subprocess.Popen[str]) -> None:
    """Kill a worker, and its node once srun has reported its end: Slurm misses the node much later."""
    first = f"--nodelist={NODE_OF_WORKER} "

    def sruns() -> dict[int, str]:
        return {p: c for p, c in commands_with(first).items() if "--disaggregation-mode" in c}

    lost = cell.attempt()
    kill_on(cell.rack, NODE_OF_WORKER, "--disaggregation-mode")
    wait_for(lambda: not sruns())
    cell.rack.kill_node(NODE_OF_WORKER)
    wait_for(lambda: has_ended(lost), 150)
    cell.rack.start_daemons()


def signal_first(part: str, number: signal.Signals) -> Inject:
    """Return what sends a signal to the first process of the trial whose command line contains `part`."""

    def inject(cell: Cell, _: subprocess.Popen[str]) -> None:
        first, *_others = cell.processes(part)
        os.kill(first, number)

    return inject


def kill_orchestrator(cell: Cell, _: subprocess.Popen[str]) -> None:
    """Kill the orchestrator with its supervisor: no process on the nodes can report it."""
    for process in reversed(cell.processes(ORCHESTRATOR)):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def truncate_logs(cell: Cell, _: subprocess.Popen[str]) -> None:
    for log in cell.attempt().glob("logs/*"):
        os.truncate(log, 0)


def garble_logs(cell: Cell, _: subprocess.Popen[str]) -> None:
    for log in cell.attempt().glob("logs/*"):
        with log.open("ab") as file:
            file.write(b"\x1b[2J\xff\xfe\x00" + bytes(range(256)) * 40 + b"\n")


def restart_controller(cell: Cell, _: subprocess.Popen[str]) -> None:
    """Kill the controller once it has saved what it knows, and start it again.

    It saves a change within 5 s, and nothing without one (SAVE_MAX_WAIT in Slurm's state_save.c).
    """
    asked_s, saved = time.time(), cell.rack.folder / "state" / "job_state"
    jobs = cell.rack.jobs()
    wait_for(
        lambda: (
            not jobs
            or (saved.exists() and (saved.stat().st_mtime > asked_s or time.time() > asked_s + UNSAVED_S))
        )
    )
    cell.rack.restart_controller()


def hang_squeue(cell: Cell, _: subprocess.Popen[str]) -> None:
    """Let the first squeue from now on hang."""
    count = cell.folder / "squeue-calls"
    cell.replace("squeue", f'echo >>{count}; [ $(wc -l <{count}) -le 1 ] && exec sleep 900; exec $REAL "$@"')
    if not (cell.folder / "gate").exists():  # a driver that waits for sbatch does not ask
        wait_for(count.exists)


def stop_accounting(cell: Cell, _: subprocess.Popen[str]) -> None:
    cell.rack.stop_accounting()


def answer_sbatch(script: str) -> Inject:
    """Return what answers the sbatch that runs by `script` (sh)."""

    def inject(cell: Cell, _: subprocess.Popen[str]) -> None:
        (cell.folder / "answer").write_text(script)

    return inject


def refuse(message: str) -> Inject:
    """Return what refuses the job once, with `message` where sbatch has its reason."""
    return answer_sbatch(f'echo "sbatch: error: {message}" >&2; exit 1')


def close_partition(cell: Cell, _: subprocess.Popen[str]) -> None:
    cell.rack.run("scontrol", "update", f"PartitionName={PARTITION}", "State=INACTIVE")


def open_partition(cell: Cell) -> None:
    cell.rack.run("scontrol", "update", f"PartitionName={PARTITION}", "State=UP")


def start_second_driver(cell: Cell, _: subprocess.Popen[str]) -> None:
    second = cell.command()
    assert cell.end(second) == 2, "a second driver is refused"
    assert "another process is running this study" in cell.said[-1]


def make_read_only(cell: InFolder, _: subprocess.Popen[str]) -> None:
    """Let nobody, not even root, make anything in a folder of the runs until the driver has ended."""
    subprocess.run(["chattr", "-R", "-f", "+i", str(cell.folder / "runs")], check=False)


def allow_writing(folder: Path) -> None:
    """Undo `make_read_only`."""
    subprocess.run(["chattr", "-R", "-f", "-i", str(folder)], check=False)


def fill_disk(cell: InFolder, _: subprocess.Popen[str]) -> None:
    """Fill the file system that the runs are on, by a file `filler`, until the driver has ended."""
    for size in (1 << 16, 1 << 12, 1):
        with suppress(OSError), (cell.folder / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))


def fake_clock_of_driver(cell: Cell) -> None:
    cell.environment |= faked_clock(cell.folder)


def fake_clock_of_nodes(cell: Cell) -> None:
    """Let the processes of the attempt, orchestrator and load client included, read a clock that can jump."""
    clock = faked_clock(cell.folder)
    python = cell.programs / "python-of-nodes"
    assignments = " ".join(f"{name}={value}" for name, value in clock.items())
    python.write_text(f'#!/bin/sh\nexec env {assignments} {sys.executable} "$@"\n')
    python.chmod(0o755)
    given = (f"+cluster.srun_env.{name}='{value}'" for name, value in clock.items())
    cell.words = (*cell.words, f"cluster.python={python}", *given)


def jump(seconds: int) -> InjectAnywhere:
    def inject(cell: InFolder, _: subprocess.Popen[str]) -> None:
        set_clock(cell.folder, seconds)

    return inject
