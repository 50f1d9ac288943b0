"""Start processes of a plan as steps of this Slurm job, each with an srun of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tune.core.files import no_link
from tune.manifest.process import OUTSIDE_IMAGE
from tune.manifest.srun_step import JOB_VARIABLES, WITHOUT_SLURM, srun_words
from tune.orchestrator.launcher import ProcessHandle, ResolvedProcess, die_with_parent
from tune.orchestrator.preflight import program_path
from tune.orchestrator.slurm.job import Revocation, SlurmJob
from tune.orchestrator.step_environment import step_environment
from tune.orchestrator.supervision.process_tree import exit_code
from tune.spec.environment import given_values, inherited_names

_BLAMED = re.compile(
    r"srun: error: (?:Node failure on |Task launch for StepId=\S+ failed on node )([\w.-]+?)(?=[:\s]|$)"
)
"""srun's words on a node that failed, or on which no task starts. Source: Slurm, src/srun/libsrun/launch.c,
src/plugins/launch/slurm/launch_slurm.c."""

_STEPS_END_WITHIN_S, _STEPS_POLL_S = 30.0, 1.0

_SIGNAL_MAY_FOLLOW_S = 2.0
"""Seconds to wait for a signal: Slurm ends all steps of a job and signals the orchestrator in any order."""


def srun_environment(environment: Mapping[str, str], resolved: ResolvedProcess) -> dict[str, str]:
    """Return the environment of the srun of a step, which srun passes on to the step.

    `environment` is that of the batch step.
    """
    process, srun_env = resolved.process, resolved.srun_env
    inherits = (*JOB_VARIABLES, *process.inherits, *inherited_names(srun_env))
    return step_environment(environment, process.role, inherits) | given_values(srun_env)


def step_command(resolved: ResolvedProcess) -> list[str]:
    """Return the srun command of a step.

    `env` sets variables inside the step, where Slurm and pyxis have set their own.
    """
    process = resolved.process
    assigned = [f"{name}={value}" for name, value in resolved.env.items()]
    return [
        *srun_words(
            process,
            ",".join(resolved.hosts),
            container=resolved.container if process.role not in OUTSIDE_IMAGE else (),
            gpus_per_node=resolved.gpus_per_node,
            srun_options=resolved.srun_options,
            mpi=resolved.mpi,
        ),
        *(["env", *assigned] if assigned else []),
        *(WITHOUT_SLURM if process.role == "frontend" else ()),
        *resolved.argv,
    ]


class SrunLauncher:
    """Start every process as a step of `job`. `scratch` is a folder that every node sees.

    Steps on the node of this process that run in no image use `temporary`, a folder there, for temporary
    files.
    """

    def __init__(self, job: SlurmJob, scratch: Path, temporary: Path) -> None:
        self.scratch = scratch
        self._job, self._temporary = job, temporary
        self._environment = dict(os.environ)
        self._revocation: Revocation | None = None

    def start(self, resolved: ResolvedProcess) -> ProcessHandle:
        """Run a process as a step, its output into its log. Raises OSError where it cannot be started.

        Only the main thread may call this, as die_with_parent requires.
        """
        environment = srun_environment(self._environment, resolved)
        in_image = resolved.container and resolved.process.role not in OUTSIDE_IMAGE
        if resolved.process.node_index == 0 and not in_image:
            environment["TMPDIR"] = str(self._temporary)
        if resolved.process.role == "client":
            environment["PATH"] = program_path()
        with open(resolved.log, "wb", opener=no_link) as file:
            return _Step(
                subprocess.Popen(
                    step_command(resolved),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509
                )
            )

    def revoked_reason(self) -> str | None:
        """Return the reason if Slurm is ending the job, else None.

        Waits for a signal that may be on its way.
        """
        time.sleep(_SIGNAL_MAY_FOLLOW_S)
        self._revocation = self._job.revocation()
        return f"stopped by Slurm: {self._revocation.text}" if self._revocation else None

    def failed_nodes(self, error: str, *, revoked: bool) -> tuple[str, ...]:
        """Return the nodes that are down, or that srun blames in the text `error` of a failure.

        Where neither names one, and the job is not `revoked`, all nodes are asked: the processes of a lost
        node are seen to end, or to answer no more, before Slurm misses the node.
        """
        down = self._revocation.failed_nodes if self._revocation else ()
        blamed = tuple(dict.fromkeys((*down, *_BLAMED.findall(error))))
        if blamed or revoked:
            return blamed
        return self._job.silent_nodes(step_environment(self._environment, "sample", JOB_VARIABLES))

    def nodes_clean(self) -> bool:
        """Return whether every step has ended: a process that the kernel cannot end keeps its step."""
        deadline_s = time.monotonic() + _STEPS_END_WITHIN_S
        while self._job.steps():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_STEPS_POLL_S)
        return True

    def interruption_reason(self, number: int) -> str:
        """Return in words why the stop signal `number` was sent."""
        if number == signal.SIGUSR2:
            return "stopped before the time limit of the job (SIGUSR2, cluster.signal_s)"
        self._revocation = self._job.revocation()
        return (
            f"stopped by Slurm: {self._revocation.text if self._revocation else signal.Signals(number).name}"
        )


class _Step:
    """Control a step by its srun, which forwards SIGINT to its tasks and turns SIGTERM into SIGKILL for them.

    A killed srun leaves its tasks running until the job ends.
    """

    def __init__(self, srun: subprocess.Popen[bytes]) -> None:
        self._srun = srun
        self._killed = False

    def poll(self) -> int | None:
        """Return the exit code of srun, None while it runs."""
        return exit_code(self._srun)

    def terminate(self) -> None:
        """Send SIGINT, which srun forwards."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Send SIGTERM, then SIGKILL."""
        self._signal(signal.SIGKILL if self._killed else signal.SIGTERM)
        self._killed = True

    def _signal(self, number: signal.Signals) -> None:
        """Signal srun while it runs."""
        if exit_code(self._srun) is None:
            with suppress(ProcessLookupError):
                os.kill(self._srun.pid, number)
