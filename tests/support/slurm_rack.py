"""Run a rack of eighteen nodes under real Slurm on this machine.

As a program, `slurm_rack.py COMMAND ...` runs COMMAND where `tune` finds such a rack (docs/how-to/slurm.md).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # as a program it is not started where `support` is found
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.checkpoints import write_checkpoint
from support.slurm_conf import ACCOUNTING, CONTROLLER, NODES, PARTITION, address
from support.slurm_daemons import SBIN
from tune.config import shipped_settings
from tune.orchestrator.supervision.process_tree import signal_on_parent_death

_DAEMONS = Path(__file__).with_name("slurm_daemons.py")
_PROGRAMS = ("sbatch", "srun", "unshare", f"{SBIN}/slurmctld", f"{SBIN}/slurmd", f"{SBIN}/munged")
_ACCOUNTING = ("sacct", "sacctmgr", f"{SBIN}/slurmdbd", f"{SBIN}/mariadbd")
_SUBNETS = range(1, 200)


class NoSlurm(Exception):
    """Report that Slurm cannot run on this machine; the message says why and what to do."""


@dataclass(frozen=True)
class SlurmRack:
    """Control a rack whose daemons keep everything in `folder`; node NN is 127.0.`subnet`.NN."""

    folder: Path
    subnet: int
    daemons: subprocess.Popen[bytes]

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables that lead Slurm's commands, and `tune`, to this rack."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    @property
    def words(self) -> tuple[str, ...]:
        """Return overrides with which `tune` runs trials here."""
        return (
            *("cluster=slurm", f"cluster.partition={PARTITION}", "cluster.account=null"),
            *("cluster.gpus_per_node_option=true", "cluster.time_limit=0:30:00"),
            f"cluster.model_path={self.folder / 'checkpoint'}",
        )

    def address(self, node: str) -> str:
        return address(node, self.subnet)

    def run(self, *command: str) -> str:
        """Return what a command of Slurm's prints. Raises CalledProcessError."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            cwd=self.folder,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        return done.stdout

    def states(self) -> dict[str, str]:
        """Return Slurm's state of each node; a star marks a node that does not answer."""
        said = self.run("sinfo", "--noheader", "--Node", "--partition", PARTITION, "--format=%N %t")
        return dict(line.split() for line in said.splitlines())

    def jobs(self) -> tuple[str, ...]:
        """Return the ids of all jobs that wait or run, without those that are being cleared up."""
        states = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"
        return tuple(self.run("squeue", "--noheader", states, "--format=%A").split())

    def all_ended(self) -> bool:
        return not self.jobs()

    def all_idle(self) -> bool:
        up = all((self.folder / "up" / node).exists() for node in NODES)
        return up and self.states() == dict.fromkeys(NODES, "idle")

    def wait_idle(self, within_s: float = 180.0) -> None:
        """Return once every node is idle. Raises TimeoutError with the state instead."""
        self.wait(self.all_idle, within_s, "18 idle nodes")

    def wait(self, condition: Callable[[], object], within_s: float, wanted: str) -> None:
        """Return once `condition` holds. Raises TimeoutError, or NoSlurm where the daemons have ended."""
        until_s = time.monotonic() + within_s
        while not condition():
            self.require_daemons()
            if time.monotonic() > until_s:
                raise TimeoutError(
                    f"after {within_s:g} s no {wanted}; nodes {self.states()}, jobs {self.jobs()}"
                )
            time.sleep(0.1)

    def require_daemons(self) -> None:
        if self.daemons.poll() is not None:
            raise NoSlurm(f"the daemons of the tests' Slurm ended with {self.daemons.returncode}")

    def processes(self, node: str) -> dict[int, str]:
        """Return the command lines of everything on `node`: its slurmd and the processes of jobs."""
        return {process: command_line(process) for process in _on_host(_host(self._slurmd(node)))}

    def visitors(self) -> dict[str, dict[int, str]]:
        """Return by node what runs there beside its slurmd; nodes with nothing are left out."""
        daemons = {node: self._slurmd(node) for node in NODES}
        found = {
            node: {p: c for p, c in self.processes(node).items() if p != daemons[node]} for node in NODES
        }
        return {node: those for node, those in found.items() if those}

    def kill_node(self, node: str) -> None:
        """Kill everything on `node`, as a power cut does, until `restore`. Slurm notices after some 25 s."""
        (self.folder / "down" / node).touch()
        space = _host(self._slurmd(node))
        while found := _on_host(space):
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)

    def stop_accounting(self) -> None:
        """Kill slurmdbd, until `restore`."""
        (self.folder / "down" / ACCOUNTING).touch()
        self._kill_daemon(ACCOUNTING)

    def restart_controller(self) -> None:
        """Kill the controller and have it started again, with the jobs that it saved."""
        (self.folder / "restart").touch()
        self._kill_daemon(CONTROLLER)
        self.wait(lambda: not (self.folder / "restart").exists(), 30, "controller that starts again")

    def restore(self) -> None:
        """Cancel every job, start what was killed, and wait until all nodes are idle again."""
        jobs = self.jobs()
        if jobs:
            self.run("scancel", *jobs)
        self.start_daemons()
        self.wait_idle()

    def start_daemons(self) -> None:
        """Let the daemons that were killed start again; the accounting, if there is one, answers then."""
        for path in (self.folder / "down").iterdir():
            path.unlink()
        if (self.folder / "database").exists():
            self.wait(self._accounts, 60, "accounting that answers")

    def _accounts(self) -> bool:
        try:
            self.run("sacct", "--noheader")
        except subprocess.CalledProcessError:
            return False
        return True

    def log(self, name: str) -> str:
        """Return what a daemon (a node's name, gctl, munged) logged."""
        parts = [self.folder / "logs" / f"{name}.{end}" for end in ("out", "log")]
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    def occupied_s(self, folder: Path) -> dict[str, float | None]:
        """Return for how long each job submitted in `folder` held its nodes, by its id, in seconds.

        The accounting learns late that a job has ended; it is None until then.
        """
        fields = "JobID,Elapsedraw,End,WorkDir"
        said = self.run(
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--starttime=now-1days",
            f"--format={fields}",
        )
        rows = (line.split("|", 3) for line in said.splitlines())
        return {
            job: None if end == "Unknown" else float(elapsed_s)
            for job, elapsed_s, end, where in rows
            if where == str(folder)
        }

    def _kill_daemon(self, name: str) -> None:
        os.kill(int((self.folder / "run" / f"{name}.pid").read_text()), signal.SIGKILL)

    def _slurmd(self, node: str) -> int:
        return int((self.folder / "run" / f"{node}.pid").read_text())


@contextmanager
def slurm_rack(*, accounting: bool = False) -> Iterator[SlurmRack]:
    """Run a rack with all nodes idle, for as long as the block runs and this process lives.

    Raises NoSlurm where that is impossible.
    """
    _require_programs((*_PROGRAMS, *_ACCOUNTING) if accounting else _PROGRAMS)
    folder = Path(tempfile.mkdtemp(prefix="tune-slurm-"))
    with _free_subnet() as (subnet, lock):
        daemons = subprocess.Popen(
            [sys.executable, str(_DAEMONS), str(folder), str(subnet), str(os.getpid())]
            + ["accounting"] * accounting,
            stdin=subprocess.DEVNULL,
            pass_fds=(lock.fileno(),),
            start_new_session=True,
        )
    rack = SlurmRack(folder, subnet, daemons)
    write_checkpoint(folder / "checkpoint", shipped_settings().model)
    try:
        _await_start(rack)
        yield rack
    finally:
        daemons.terminate()
        daemons.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _require_programs(programs: Sequence[str]) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise NoSlurm(f"found no {', '.join(missing)}: scripts/install_slurm.sh installs Slurm")
    if os.geteuid() != 0:
        raise NoSlurm("only root may give each of its nodes a host name of its own (unshare --uts)")


@contextmanager
def _free_subnet() -> Iterator[tuple[int, socket.socket]]:
    """Yield a loopback network that no other rack uses, and the socket that reserves it."""
    for subnet in _SUBNETS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
            try:
                lock.bind(f"\0tune-tests-slurm-{subnet}")
            except OSError:
                continue
            yield subnet, lock
            return
    raise NoSlurm(f"{len(_SUBNETS)} racks run on this machine")


def _await_start(rack: SlurmRack) -> None:
    def idle() -> bool:
        try:
            return (rack.folder / "munge.socket").exists() and rack.all_idle()
        except subprocess.CalledProcessError:  # no controller yet
            return False

    try:
        rack.wait(idle, 120.0, "18 idle nodes")
    except (TimeoutError, subprocess.SubprocessError, NoSlurm) as error:
        logs = "".join(f"\n{name}:\n{rack.log(name)[-2000:]}" for name in ("munged", "gctl", NODES[0]))
        raise NoSlurm(f"its daemons did not come up: {error}{logs}") from error


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _on_host(space: str | None) -> list[int]:
    """Return the living processes of a host, which is a UTS namespace here; none for None."""
    return [process for process in _processes() if space is not None and _host(process) == space]


def _host(process: int) -> str | None:
    """Return the UTS namespace of a process, None where it has ended."""
    try:
        return str(Path(f"/proc/{process}/ns/uts").readlink())
    except OSError:
        return None


def commands_with(text: str) -> dict[int, str]:
    """Return the command lines of all processes on this machine, by id, that contain `text`."""
    commands = {process: command_line(process) for process in _processes()}
    return {process: command for process, command in commands.items() if text in command}


def command_line(process: int) -> str:
    """Return the command line of a process, empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def main(command: list[str]) -> int:
    """Run `command` while a rack is up; return its exit code."""
    try:
        with slurm_rack() as rack:
            print("tune", *rack.words, file=sys.stderr)
            environment = os.environ | rack.environment
            follows = partial(signal_on_parent_death, signal.SIGTERM, os.getpid())
            return subprocess.run(command, env=environment, check=False, preexec_fn=follows).returncode
    except NoSlurm as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [os.environ.get("SHELL", "/bin/sh")]))
