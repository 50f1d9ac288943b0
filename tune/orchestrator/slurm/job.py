"""The Slurm job that this process runs in: its nodes, its time, whether Slurm takes it back."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune.errors import ConfigurationError, ResumableError
from tune.orchestrator.launcher import NodeAddresses
from tune.orchestrator.supervision.signals import defer_signals
from tune.spec.slurm_time import duration_s

_ANSWER_WITHIN_S = 60.0
_LAST_ANSWER_WITHIN_S = 4.0
"""When a job is ended: less than Slurm waits before it kills, KillWait."""

NODE_FAIL = "NODE_FAIL"
_COMPLETING = {"NodeDown": NODE_FAIL, "TimeLimit": "TIMEOUT", "None": "CANCELLED"}


@dataclass(frozen=True)
class SlurmJob:
    """`node_list`: its nodes in Slurm's notation. A command of Slurm's that fails raises ResumableError."""

    job_id: str
    node_list: str

    def nodes(self, count: int) -> NodeAddresses:
        """The first `count` nodes. Raises ConfigurationError where there are fewer, ResumableError as above."""
        hosts = _say("scontrol", "show", "hostnames", self.node_list).split()
        if len(hosts) < count:
            raise ConfigurationError(
                f"Slurm job {self.job_id} has {len(hosts)} nodes ({self.node_list}), expected {count} "
                f"(hardware.nodes). Submit it with --nodes={count}."
            )
        named = node_addresses(_say("scontrol", "--oneliner", "show", "node", self.node_list))
        hosts = hosts[:count]
        return NodeAddresses(tuple(hosts), reachable([_resolve(named.get(host, host)) for host in hosts]))

    def left_s(self) -> float | None:
        """Seconds until the time limit, None where there is none."""
        return parse_left_s(_say("squeue", "--noheader", f"--jobs={self.job_id}", "--format=%L"))

    def steps(self) -> list[str]:
        """Ids of the steps that srun made and that have not ended."""
        return srun_steps(_say("squeue", "--noheader", "--steps", f"--jobs={self.job_id}", "--format=%i"))

    def withdrawn(self) -> str | None:
        """Why Slurm ends this job, None where it does not or does not answer."""
        try:
            why = end_reason(
                _say("scontrol", "--oneliner", "show", "job", self.job_id, within_s=_LAST_ANSWER_WITHIN_S)
            )
            if why == NODE_FAIL:
                asked = ("--noheader", "--Node", f"--nodes={self.node_list}", "--format=%N %t")
                nodes = _say("sinfo", *asked, within_s=_LAST_ANSWER_WITHIN_S)
                return f"{why}, {', '.join(down_nodes(nodes)) or 'a node'} is down"
        except ResumableError:  # what is seen here is told instead
            return None
        return why


def current_job(environment: Mapping[str, str]) -> SlurmJob:
    """The job whose batch step has this `environment`. Raises ConfigurationError where it is none."""
    missing = [name for name in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST") if not environment.get(name)]
    if missing:
        raise ConfigurationError(
            f"Found no {' and no '.join(missing)} in the environment, expected those of a Slurm job. Submit "
            "job.sbatch, or leave --slurm out for an attempt on this machine."
        )
    return SlurmJob(environment["SLURM_JOB_ID"], environment["SLURM_JOB_NODELIST"])


def end_reason(said: str) -> str | None:
    """Why Slurm ends the job that `scontrol --oneliner show job` describes so, None where it does not.

    A job that is being ended is COMPLETING, and only the reason tells why; a cancelled one has none, nor has
    one that was preempted in a partition without GraceTime. Source: seen in Slurm 22.05.
    """
    fields = dict(word.partition("=")[::2] for word in said.split())
    state, preempted_at = fields.get("JobState", "RUNNING"), fields.get("PreemptTime", "None")
    if preempted_at != "None":
        return f"preempted at {preempted_at}"
    if state == "COMPLETING":
        return _COMPLETING.get(fields.get("Reason", "None"), f"it is {state}")
    return None if state == "RUNNING" else state


def srun_steps(said: str) -> list[str]:
    """The numbered ones of what `squeue --steps --format=%i` prints: not 7.batch, 7.extern."""
    return [step for step in said.split() if step.rpartition(".")[2].isdecimal()]


def down_nodes(said: str) -> list[str]:
    """Nodes that are down, as `sinfo --Node --format="%N %t"` prints them: a star behind a silent one."""
    lines = [line.split() for line in said.splitlines()]
    return sorted({fields[0] for fields in lines if len(fields) == 2 and fields[1].startswith("down")})


def node_addresses(said: str) -> dict[str, str]:
    """NodeAddr by NodeName, as `scontrol --oneliner show node` prints them."""
    found = {}
    for line in said.splitlines():
        fields = dict(word.partition("=")[::2] for word in line.split())
        if "NodeName" in fields and "NodeAddr" in fields:
            found[fields["NodeName"]] = fields["NodeAddr"]
    return found


def parse_left_s(said: str) -> float | None:
    """Seconds of what squeue's %L says, None for `UNLIMITED`. Raises ResumableError for anything else."""
    text = said.strip()
    left_s = duration_s(text)
    if left_s is None and text != "UNLIMITED":
        raise ResumableError(f"squeue: found {text!r} as the time left, expected days-hours:minutes:seconds.")
    return left_s


def reachable(addresses: Sequence[str]) -> tuple[str, ...]:
    """`addresses` of the nodes, the first of them this host, as all of them can be reached by the others.

    A host may know its own name as a loopback address, Debian as 127.0.1.1, which means another host to every
    other. It is right only where all nodes are one machine.
    """
    elsewhere = [address for address in addresses if not ipaddress.ip_address(address).is_loopback]
    if not elsewhere or addresses[0] in elsewhere:
        return tuple(addresses)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere[0], 9))  # sends nothing: the kernel chooses the interface
        return (str(probe.getsockname()[0]), *addresses[1:])


def _resolve(name: str) -> str:
    try:
        return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise ResumableError(
            f"The node address {name} does not resolve ({error.strerror or error}); expected an IPv4 address "
            "in NodeAddr of scontrol show node, or a name that this node knows."
        ) from error


def _say(*command: str, within_s: float = _ANSWER_WITHIN_S) -> str:
    """What one of Slurm's commands prints. Raises ResumableError where it fails.

    An interrupt in the middle of `run` could leave a lock of subprocess taken.
    """
    try:
        with defer_signals(last=False):
            done = subprocess.run(command, check=True, capture_output=True, timeout=within_s)
    except subprocess.CalledProcessError as error:
        raise ResumableError(
            f"{' '.join(command)}: {error.stderr.decode('utf-8', 'replace').strip() or error}"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResumableError(f"{' '.join(command)}: {error}") from error
    return done.stdout.decode("utf-8", "replace")
