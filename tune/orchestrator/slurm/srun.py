"""Processes of a plan as steps of this Slurm job, each an srun of its own.

Source of the options: Slurm, srun(1).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tune.orchestrator.launcher import ProcessHandle, ResolvedProcess, die_with_parent
from tune.orchestrator.preflight import program_path
from tune.orchestrator.slurm.job import SlurmJob
from tune.orchestrator.supervision.process_tree import exit_code

_JOB_VARIABLES = frozenset(
    {
        *("SLURM_CONF", "SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES"),
        *("SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"),
    }
)
_STEP_VARIABLES = ("SLURM_", "SRUN_", "SBATCH_", "PMI_", "PMIX_")
"""A step must not inherit the batch step's own shape: task counts, CPU masks, rank."""

_STEPS_END_WITHIN_S, _STEPS_POLL_S = 30.0, 1.0

_SIGNAL_MAY_FOLLOW_S = 2.0
"""Where Slurm ends a job it ends all steps and tells the orchestrator, in any order."""


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` of a batch step without what it says of that step."""
    return {
        name: value
        for name, value in environment.items()
        if name in _JOB_VARIABLES or not name.startswith(_STEP_VARIABLES)
    }


def step_command(bound: ResolvedProcess) -> list[str]:
    """The srun command of a step.

    --overlap: steps share nodes. --overcommit: a job may have fewer CPUs than a worker has ranks. `env`
    sets variables inside the step, where Slurm and pyxis have set their own.
    """
    process, nodes = bound.process, len(bound.hosts)
    ranked = ["--mpi=pmix"] if process.mpi else ["--mpi=none"]
    if process.gpus and bound.gpus_per_node is not None:
        ranked.append(f"--gpus-per-node={bound.gpus_per_node}")
    contained = list(bound.container) if process.role != "client" else []
    assigned = [f"{name}={value}" for name, value in bound.env.items()]
    return [
        *("srun", "--overlap", "--overcommit", "--kill-on-bad-exit=1", "--disable-status", "--input=none"),
        *(f"--job-name={process.name}", f"--nodes={nodes}", f"--nodelist={','.join(bound.hosts)}"),
        *(f"--ntasks={process.tasks}", f"--ntasks-per-node={process.tasks // nodes}"),
        *("--distribution=block", *ranked, *contained),
        *(["env", *assigned] if assigned else []),
        *bound.argv,
    ]


class SrunLauncher:
    """Every process as a step of `job`; `scratch` as in Starter.

    Steps on the node of this process that run in no image take `temporary`, a folder there, for temporary
    files.
    """

    def __init__(self, job: SlurmJob, scratch: Path, temporary: Path) -> None:
        self.scratch = scratch
        self._job, self._temporary = job, temporary
        self._environment = step_environment(os.environ)

    def start(self, bound: ResolvedProcess) -> ProcessHandle:
        """As the protocol says; called from the main thread only, as `following` asks."""
        environment = dict(self._environment)
        if bound.container and bound.process.role != "client":
            environment.pop("TMPDIR", None)  # an image has its own
        elif bound.process.node_index == 0:
            environment["TMPDIR"] = str(self._temporary)
        if bound.process.role == "client":
            environment["PATH"] = program_path()
        with bound.log.open("wb") as file:
            return _Step(
                subprocess.Popen(
                    step_command(bound),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
                )
            )

    def withdrawn(self) -> str | None:
        """Waits for a signal that may be on its way, then asks Slurm."""
        time.sleep(_SIGNAL_MAY_FOLLOW_S)
        why = self._job.withdrawn()
        return f"stopped by Slurm: {why}" if why else None

    def swept(self) -> bool:
        """A process that the kernel does not end outlives its srun and keeps its step."""
        until_s = time.monotonic() + _STEPS_END_WITHIN_S
        while self._job.steps():
            if time.monotonic() > until_s:
                return False
            time.sleep(_STEPS_POLL_S)
        return True

    def interruption(self, number: int) -> str:
        if number == signal.SIGUSR2:
            return "stopped before the time limit of the job (SIGUSR2, cluster.signal_s)"
        return f"stopped by Slurm: {self._job.withdrawn() or signal.Signals(number).name}"


class _Step:
    """A step by its srun, which forwards SIGINT to its tasks and turns SIGTERM into SIGKILL for them.

    A killed srun leaves its tasks running until the job ends.
    """

    def __init__(self, srun: subprocess.Popen[bytes]) -> None:
        self._srun = srun
        self._killed = False

    def poll(self) -> int | None:
        return exit_code(self._srun)

    def terminate(self) -> None:
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL if self._killed else signal.SIGTERM)
        self._killed = True

    def _signal(self, number: signal.Signals) -> None:
        if exit_code(self._srun) is None:
            with suppress(ProcessLookupError):
                os.kill(self._srun.pid, number)
