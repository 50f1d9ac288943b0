"""Describe the Slurm job that this process runs in: its nodes, its time, and whether it is being ended."""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune.errors import ConfigurationError, ResumableError
from tune.orchestrator.launcher import NodeAddresses
from tune.orchestrator.supervision.signals import defer_signals
from tune.spec.slurm_time import duration_s

_TIMEOUT_S = 60.0
"""Seconds for a command of Slurm's to answer."""
_ENDING_TIMEOUT_S = 4.0
"""Seconds for a command to answer while the job ends: less than KillWait, after which Slurm kills."""

_ALL_NODES_ANSWER_S = 10.0
"""Seconds for a step on all nodes. srun names a node that it cannot reach after some seconds; one that
answers starts a step within one."""

_UNREACHED = re.compile(
    r"srun: error: Task launch for StepId=\S+ failed on node ([\w.-]+?): (?:Communication connection failure"
    r"|Socket timed out|Zero Bytes were transmitted|Unable to contact)"
)
"""srun's words on a node that it cannot reach. Source: Slurm, src/plugins/launch/slurm/launch_slurm.c and
src/common/slurm_errno.c; seen in 22.05."""

NODE_FAIL = "NODE_FAIL"
_COMPLETING = {"NodeDown": NODE_FAIL, "TimeLimit": "TIMEOUT", "None": "CANCELLED"}


@dataclass(frozen=True)
class Revocation:
    """Hold why Slurm ends a job, in its words, and the nodes that are down."""

    reason: str
    failed_nodes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return the reason with the nodes, for a message."""
        if self.reason != NODE_FAIL:
            return self.reason
        return f"{self.reason}, {', '.join(self.failed_nodes) or 'a node'} is down"


@dataclass(frozen=True)
class SlurmJob:
    """Describe a job. `node_list`: its nodes in Slurm's notation.

    A command of Slurm's that fails raises ResumableError.
    """

    job_id: str
    node_list: str

    def nodes(self, count: int) -> NodeAddresses:
        """Return the first `count` nodes.

        Raises ConfigurationError where there are fewer, ResumableError where a command of Slurm's fails.
        """
        hosts = _run_command("scontrol", "show", "hostnames", self.node_list).split()
        if len(hosts) < count:
            raise ConfigurationError(
                f"Slurm job {self.job_id} has {len(hosts)} nodes ({self.node_list}), expected {count} "
                f"(hardware.nodes). Submit it with --nodes={count}."
            )
        configured = node_addresses(_run_command("scontrol", "--oneliner", "show", "node", self.node_list))
        hosts = hosts[:count]
        return NodeAddresses(
            tuple(hosts), reachable([_resolve(configured.get(host, host)) for host in hosts])
        )

    def time_left_s(self) -> float | None:
        """Return the seconds until the time limit, None where there is none."""
        return parse_time_left_s(_run_command("squeue", "--noheader", f"--jobs={self.job_id}", "--format=%L"))

    def steps(self) -> list[str]:
        """Return the ids of the steps that srun made and that have not ended."""
        return srun_steps(
            _run_command("squeue", "--noheader", "--steps", f"--jobs={self.job_id}", "--format=%i")
        )

    def revocation(self) -> Revocation | None:
        """Return why Slurm is ending this job, None where it is not or does not answer."""
        try:
            reason = end_reason(
                _run_command(
                    "scontrol", "--oneliner", "show", "job", self.job_id, timeout_s=_ENDING_TIMEOUT_S
                )
            )
            if reason == NODE_FAIL:
                asked = ("--noheader", "--Node", f"--nodes={self.node_list}", "--format=%N %t")
                nodes = _run_command("sinfo", *asked, timeout_s=_ENDING_TIMEOUT_S)
                return Revocation(reason, tuple(down_nodes(nodes)))
        except ResumableError:  # the caller reports the failure that it observed
            return None
        return Revocation(reason) if reason else None

    def silent_nodes(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        """Return the nodes on which srun starts nothing, as it cannot reach them; none where all answer.

        `environment` is that of srun. Slurm itself marks a node as down only after SlurmdTimeout, 300 s by
        default. srun says within seconds which node it does not reach, but may wait for that node until it is
        stopped.
        """
        step = ("srun", "--overlap", "--overcommit", "--mpi=none", "--ntasks-per-node=1", "--input=none")
        with defer_signals(last=False):
            try:
                asked = subprocess.Popen(
                    (*step, f"--nodelist={self.node_list}", "true"),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            except OSError:  # the caller reports the failure that it observed
                return ()
            with asked:
                said = _said_within(asked, _ALL_NODES_ANSWER_S)
        return tuple(dict.fromkeys(_UNREACHED.findall(said)))


def _said_within(process: subprocess.Popen[bytes], within_s: float) -> str:
    """Return what a process writes to its standard error; end it where it runs for longer than `within_s`."""
    for end in (process.terminate, process.kill):
        try:
            return process.communicate(timeout=within_s)[1].decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            end()
    return process.communicate()[1].decode("utf-8", "replace")


def current_job(environment: Mapping[str, str]) -> SlurmJob:
    """Return the job whose batch step has this `environment`. Raises ConfigurationError where it is none."""
    missing = [name for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST") if not environment.get(name)]
    if missing:
        raise ConfigurationError(
            f"Found no {' and no '.join(missing)} in the environment, expected those of a Slurm job. Submit "
            "job.sbatch, or leave --slurm out for an attempt on this machine."
        )
    return SlurmJob(environment["SLURM_JOB_ID"], environment["SLURM_JOB_NODELIST"])


def end_reason(output: str) -> str | None:
    """Return why Slurm ends a job, from what `scontrol --oneliner show job` prints; None if it does not.

    A job that is being ended is COMPLETING, and only its reason says why; a cancelled job has none, nor has
    one that was preempted in a partition without GraceTime. Source: seen in Slurm 22.05.
    """
    fields = dict(word.partition("=")[::2] for word in output.split())
    state, preempted_at = fields.get("JobState", "RUNNING"), fields.get("PreemptTime", "None")
    if preempted_at != "None":
        return f"preempted at {preempted_at}"
    if state == "COMPLETING":
        return _COMPLETING.get(fields.get("Reason", "None"), f"it is {state}")
    return None if state == "RUNNING" else state


def srun_steps(output: str) -> list[str]:
    """Return the numbered steps that `squeue --steps --format=%i` prints, without 7.batch and 7.extern."""
    return [step for step in output.split() if step.rpartition(".")[2].isdecimal()]


def down_nodes(output: str) -> list[str]:
    """Return the nodes that `sinfo --Node --format="%N %t"` prints as down; a star marks a silent one."""
    lines = [line.split() for line in output.splitlines()]
    return sorted({fields[0] for fields in lines if len(fields) == 2 and fields[1].startswith("down")})


def node_addresses(output: str) -> dict[str, str]:
    """Return NodeAddr by NodeName, as `scontrol --oneliner show node` prints them."""
    configured = {}
    for line in output.splitlines():
        fields = dict(word.partition("=")[::2] for word in line.split())
        if "NodeName" in fields and "NodeAddr" in fields:
            configured[fields["NodeName"]] = fields["NodeAddr"]
    return configured


def parse_time_left_s(output: str) -> float | None:
    """Return the seconds that squeue's %L prints, None for `UNLIMITED`; raise ResumableError otherwise."""
    text = output.strip()
    time_left_s = duration_s(text)
    if time_left_s is None and text != "UNLIMITED":
        raise ResumableError(f"squeue: found {text!r} as the time left, expected days-hours:minutes:seconds.")
    return time_left_s


def reachable(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return `addresses` of the nodes, the first of them this host, such that every node can reach them.

    A host may know its own name as a loopback address (Debian: 127.0.1.1), which means another host to every
    other node. It is right only where all nodes are one machine.
    """
    usable = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if not usable or addresses[0] in usable:
        return tuple(addresses)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((usable[0], 9))  # sends nothing: the kernel chooses the interface
        return (str(probe.getsockname()[0]), *addresses[1:])


def _resolve(name: str) -> str:
    """Return the IPv4 address of `name`. Raises ResumableError where it has none."""
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise ResumableError(
            f"The node address {name} does not resolve ({error.strerror or error}); expected an IPv4 address "
            "in NodeAddr of scontrol show node, or a name that this node knows."
        ) from error


def _run_command(*command: str, timeout_s: float = _TIMEOUT_S) -> str:
    """Return the output of one of Slurm's commands. Raises ResumableError where it fails.

    Signals are deferred: an interrupt in the middle of `run` could leave a lock of subprocess taken.
    """
    try:
        with defer_signals(last=False):
            completed = subprocess.run(command, check=True, capture_output=True, timeout=timeout_s)
    except subprocess.CalledProcessError as error:
        raise ResumableError(
            f"{' '.join(command)}: {error.stderr.decode('utf-8', 'replace').strip() or error}"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResumableError(f"{' '.join(command)}: {error}") from error
    return completed.stdout.decode("utf-8", "replace")
