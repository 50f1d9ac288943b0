"""Use the allocation that the shell of this process holds (salloc), instead of queueing.

Every job is then a step in it, on its first node, and ends with this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tune.backends.slurm.allocation import Allocation
from tune.backends.slurm.commands import SlurmUnavailable, environment, run_command, show_job
from tune.backends.slurm.failed_nodes import AvoidedNodes
from tune.backends.slurm.job_monitor import JobMonitor
from tune.backends.slurm.job_source import JobSource
from tune.backends.slurm.job_states import JobInfo
from tune.core.files import write_text
from tune.errors import ConfigurationError
from tune.orchestrator.launcher import die_with_parent
from tune.orchestrator.supervision.process_tree import exit_code
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

_POLL_S = 0.1


@dataclass(frozen=True)
class HeldAllocation:
    """Name a running job that this process may use, and its nodes."""

    job_id: str
    hosts: tuple[str, ...]

    def step(self, hosts: Sequence[str], argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start one task on the first of `hosts`, which are the nodes of the job as far as it can see.

        Its output goes to `log`. srun passes SIGINT on to it, and gets one when this process ends.
        """
        shown = {"SLURM_JOB_ID": self.job_id, "SLURM_JOB_NODELIST": ",".join(hosts)}
        srun = ("srun", f"--jobid={self.job_id}", "--overlap", "--overcommit", "--nodes=1", "--ntasks=1")
        quiet = (f"--nodelist={hosts[0]}", "--mpi=none", "--disable-status", "--input=none")
        inside = ("env", *(f"{name}={value}" for name, value in shown.items()))
        with log.open("wb") as file:
            return subprocess.Popen(
                [*srun, *quiet, *inside, *argv],
                env=environment() | shown,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGINT),  # noqa: PLW1509
            )

    def run_script(self, script: str, log: Path) -> JobInfo:
        """Run a shell script on the first node, its output into `log`; return how it ended."""
        path = log.with_suffix(".sh")
        write_text(path, script)
        step = self.step(self.hosts, ("/bin/sh", str(path)), log)
        try:
            while (code := exit_code(step)) is None:
                time.sleep(_POLL_S)
        finally:
            _stop(step)
        return _ended(code)


def held_allocation(shell: Mapping[str, str]) -> HeldAllocation | None:
    """Return the allocation of a shell with these variables, None where it holds none that runs.

    Raises SlurmUnavailable where Slurm does not answer.
    """
    job_id = shell.get("SLURM_JOB_ID")
    if not job_id or show_job(job_id).phase != "running":
        return None
    return HeldAllocation(job_id, expand_hosts(shell.get("SLURM_JOB_NODELIST", "")))


def usable_allocation(
    shell: Mapping[str, str], nodes: int, say: Callable[[str], None]
) -> HeldAllocation | None:
    """Return the allocation of a shell where it has `nodes` nodes; `say` receives what that means.

    None where the shell holds none, or one that is too small.
    """
    try:
        held = held_allocation(shell)
    except SlurmUnavailable as error:
        say(f"Whether this shell holds an allocation is not known ({error}): jobs are queued.")
        return None
    if held is None:
        return None
    size = f"job {held.job_id}, of {len(held.hosts)} nodes"
    if len(held.hosts) < nodes:
        say(f"This shell holds {size}, and a trial takes {nodes}: jobs of their own are queued.")
        return None
    say(f"This shell holds {size}: trials run there one after the other, nothing is queued.")
    return held


def expand_hosts(node_list: str) -> tuple[str, ...]:
    """Return the names of the nodes in a list of Slurm's. Raises SlurmUnavailable."""
    return tuple(run_command(("scontrol", "show", "hostnames", node_list))[0].split()) if node_list else ()


class HeldSteps(JobSource):
    """Run one allocation at a time as a step of `held`."""

    started = "started in the allocation that this shell holds"
    second_interrupt = "stops them; the same command tries them again"

    def __init__(
        self, held: HeldAllocation, facts: ClusterFacts, monitor: JobMonitor, say: Callable[[str], None]
    ) -> None:
        self._held, self._facts, self._monitor, self._avoided = held, facts, monitor, AvoidedNodes(say)
        self._excluded = {name for nodes in facts.exclude for name in expand_hosts(nodes)}
        self._steps: dict[Path, subprocess.Popen[bytes]] = {}
        self._ended: dict[Path, JobInfo] = {}

    def require(self, spec: TrialSpec) -> None:
        """Raise ConfigurationError where the allocation has too few nodes for `spec`."""
        self._hosts(spec, ())

    def start(self, allocation: Allocation, spec: TrialSpec) -> str | None:
        """Start a step; return None where another one still runs."""
        if any(exit_code(step) is None for step in self._steps.values()):
            return None
        hosts = self._hosts(spec, self._avoided.of(allocation.folder.parents[1]))
        python = self._facts.python or sys.executable
        argv = (python, "-m", "tune.orchestrator", "--job", str(allocation.folder))
        log = allocation.folder / f"{self._held.job_id}_0_log.out"
        self._steps[allocation.folder] = self._held.step(hosts, argv, log)
        return self._held.job_id

    def info(self, allocation: Allocation, job_id: str) -> JobInfo:
        """Return the state of the step, or that of the job where this process did not start it."""
        step = self._steps.get(allocation.folder)
        code = None if step is None else exit_code(step)
        if code is None:
            return self._monitor.info(job_id)
        return self._ended.setdefault(allocation.folder, _ended(code))

    def cancel(self, allocation: Allocation, job_id: str) -> None:
        """Stop the step of the allocation; the job goes on."""
        step = self._steps.get(allocation.folder)
        if step is not None and exit_code(step) is None:
            os.kill(step.pid, signal.SIGINT)

    def close(self) -> None:
        """Stop the step that runs and wait for its end: none of its processes outlives this one."""
        for step in self._steps.values():
            _stop(step)

    def _hosts(self, spec: TrialSpec, failed: Sequence[str]) -> tuple[str, ...]:
        """Return the nodes for `spec`. Raises ConfigurationError where there are too few."""
        avoided = self._excluded.union(failed)
        usable = [host for host in self._held.hosts if host not in avoided]
        if len(usable) < spec.hardware.nodes:
            without = f" without {', '.join(sorted(avoided))}" if avoided else ""
            raise ConfigurationError(
                f"hardware.nodes: found {spec.hardware.nodes}, expected at most {len(usable)}, the nodes of "
                f"the allocation that this shell holds (job {self._held.job_id}{without}). Hold a larger "
                "one, or run this outside of it."
            )
        return tuple(usable[: spec.hardware.nodes])


def _ended(code: int) -> JobInfo:
    """Return what a job that ended with `code` would be."""
    state = "FAILED" if code else "COMPLETED"
    return JobInfo(state, exit_code=f"{code}:0", ended_at=datetime.now(UTC))


def _stop(step: subprocess.Popen[bytes]) -> None:
    """Ask a step to stop, where it runs, and wait for its end."""
    if exit_code(step) is None:
        os.kill(step.pid, signal.SIGINT)
    while exit_code(step) is None:
        time.sleep(_POLL_S)
