"""Run a short script on one node, as a job of its own or in the allocation held, and wait for its end."""

from __future__ import annotations

import math
import os
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune.backends.slurm.commands import SlurmUnavailable, cancel_job, run_command, show_job
from tune.backends.slurm.held_allocation import held_allocation
from tune.backends.slurm.job_states import JobInfo
from tune.deploy.extra_sbatch import BEGIN_OTHERS
from tune.deploy.job_script import sbatch_options
from tune.deploy.option_names import meant_options
from tune.spec.cluster import ClusterFacts
from tune.spec.hardware import Hardware
from tune.spec.slurm_time import time_limit_s

QUEUE_LIMIT_S = 300.0
"""Seconds that such a job may wait in the queue. A user waits for it; what it answers can be asked later."""

_OF_THE_WHOLE_JOB = ("gpus", "nodefile", "nodelist", "segment", "signal", "time-min")
"""Options of sbatch that state the size, the nodes or the length of a job of all nodes. Source: sbatch(1)."""

_POLL_S = 1.0
_JOB_ID = re.compile(r"^(\d+)(?:;\S*)?$", re.MULTILINE)


class NotRun(Exception):
    """Report why the script did not run, or did not end; the message holds Slurm's words, if any."""


@dataclass(frozen=True)
class OneNodeJob:
    """Describe a job of one node of the cluster `facts`.

    It has `time_limit`, or that of the cluster where it is shorter. `say` receives one line for each state of
    the job. `queue_limit_s` limits its time in the queue.
    """

    facts: ClusterFacts
    hardware: Hardware
    time_limit: str
    say: Callable[[str], None]
    queue_limit_s: float = QUEUE_LIMIT_S

    def run(self, script: str, log: Path) -> JobInfo:
        """Run the shell script `script`, its output into `log`; return the job once it has ended.

        A job that is not waited for any more is cancelled. Raises NotRun.
        """
        try:
            job_id = self._submit(script, log)
        except SlurmUnavailable as error:
            raise NotRun(str(error)) from error
        ended = False
        try:
            info = self._await_end(job_id)
            ended = True
        except SlurmUnavailable as error:
            raise NotRun(str(error)) from error
        finally:
            if not ended:
                cancel_job(job_id)
        return info

    def _submit(self, script: str, log: Path) -> str:
        """Submit the job and return its id. Raises SlurmUnavailable."""
        whole = sbatch_options(self.facts, 1, self.hardware.gpus_per_node)
        limit = min(self.time_limit, self.facts.time_limit, key=lambda text: time_limit_s(text) or math.inf)
        options = {
            name: value
            for name, value in whole.items()
            if not meant_options(name, _OF_THE_WHOLE_JOB, BEGIN_OTHERS - {"gpus"})
        }
        options |= {"time": limit, "output": str(log), "ntasks": 1}
        arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
        said, _ = run_command(("sbatch", "--parsable", *arguments), stdin=f"#!/bin/sh\n{script}\n")
        found = _JOB_ID.findall(said)
        if not found:
            raise SlurmUnavailable(f"sbatch said {said.strip()!r}, expected the id of a job")
        return str(found[-1])

    def _await_end(self, job_id: str) -> JobInfo:
        """Return the job once it has ended. Raises SlurmUnavailable, and NotRun where it waits too long."""
        deadline_s, last_text = time.monotonic() + self.queue_limit_s, ""
        while True:
            info = show_job(job_id)
            if info.text != last_text:
                self.say(f"job {job_id} (one node): {info.text}")
                last_text = info.text
            if info.phase == "ended":
                return info
            if info.phase == "waiting" and time.monotonic() > deadline_s:
                raise NotRun(f"no node was free within {self.queue_limit_s:g} s: {info.text}")
            time.sleep(_POLL_S)


def run_on_one_node(job: OneNodeJob, script: str, log: Path) -> JobInfo:
    """Run `script` as `job`, or on a node of the allocation that this shell holds; return how it ended.

    Raises NotRun.
    """
    try:
        held = held_allocation(os.environ)
    except SlurmUnavailable as error:
        raise NotRun(str(error)) from error
    if held is None:
        return job.run(script, log)
    job.say(f"one node of job {held.job_id}, which this shell holds")
    return held.run_script(script, log)


def python_script(python: str, *arguments: str) -> str:
    """Return a script that names the node, then runs `python` with `arguments` in its place."""
    return f'echo "$(hostname), $(uname -m)"\nexec {shlex.join((python, *arguments))}'
