"""One attempt, from free ports to its record: the same on a laptop and in an allocation."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tune.client.settings import read_settings
from tune.deploy.launch import Launch, read_launch
from tune.errors import TuneError
from tune.orchestrate.before import require_free_ports
from tune.orchestrate.broken import Broken, Cause, Withdrawn, last_lines
from tune.orchestrate.deployment import Deployment
from tune.orchestrate.held import Held
from tune.orchestrate.interrupts import Interrupted, deferred
from tune.orchestrate.readiness import Patience, bring_up
from tune.orchestrate.running import POLL_S, Running, Say, ending
from tune.orchestrate.scraper import Scraper
from tune.orchestrate.starter import Nodes, Starter
from tune.orchestrate.warm_up import drain, require_spread, taken, warm_up
from tune.results.folder import PROBE_FOLDER, trial_of, write_attempt
from tune.results.record import AttemptRecord

INTERRUPTED = 130

_LAST_WORD_S = 2.0
"""For a client to write what it knows; and, interrupted, for all: soon Slurm kills what is left, KillWait."""

Allocated = Callable[[int], Nodes]
"""The hosts for so many node indices; those with the name of node 0 are this host."""


@dataclass(frozen=True)
class _Begun:
    """An attempt that runs since `at`, which is `at_s` of the monotonic clock."""

    attempt: Path
    at: datetime
    at_s: float
    say: Say

    @property
    def lasts_s(self) -> float:
        return time.monotonic() - self.at_s

    def record(self, error: str | None, cause: Cause | None) -> None:
        """Write attempt.json."""
        record = AttemptRecord(
            started_at=self.at.isoformat(),
            ended_at=datetime.now(UTC).isoformat(),
            held_s=self.lasts_s,
            error=error,
            cause=cause,
        )
        write_attempt(self.attempt, record)
        self.say(f"attempt {self.attempt.name}: {'measured' if error is None else error.splitlines()[0]}")


def run_attempt(attempt: Path, allocated: Allocated, starter: Starter, say: Say, held: Held) -> int:
    """Run the trial's plan and leave attempt.json in the folder `attempt`, whatever happens.

    When this returns, everything in `held` has ended, or is what the next attempt may keep. Exit code: 0 the
    probe is there, 1 the point is wrong, 3 the world is, 130 interrupted, which no further attempt should
    follow.
    """
    begun = _Begun(attempt, datetime.now(UTC), time.monotonic(), say)
    try:
        error, cause, code = _tried(attempt, allocated, starter, say, held)
    except (KeyboardInterrupt, Withdrawn) as stop:
        why = starter.interruption(stop.number) if isinstance(stop, Interrupted) else str(stop)
        error, cause, code = f"{why} after {begun.lasts_s:.0f} s", "world", INTERRUPTED
        held.hurry(_LAST_WORD_S)
    with deferred(last=held.last or code == INTERRUPTED):
        held.stop_client(_LAST_WORD_S)
        begun.record(error, cause)  # before the rest is stopped: little time may be left
        held.settle(measured=error is None)
    return code


def _tried(
    attempt: Path, allocated: Allocated, starter: Starter, say: Say, held: Held
) -> tuple[str | None, Cause | None, int]:
    """What broke and whose fault it is, None where nothing did; the exit code. Raises Withdrawn."""
    try:
        _run(attempt, allocated, starter, say, held)
    except Withdrawn:
        raise
    except Broken as broken:
        return str(broken), broken.cause, 1 if broken.cause == "point" else 3
    except TuneError as known:
        return str(known), "world", 3
    except Exception:  # a fault of ours fails the attempt with its trace; the study goes on
        return traceback.format_exc(), "world", 3
    return None, None, 0


def _run(attempt: Path, allocated: Allocated, starter: Starter, say: Say, held: Held) -> None:
    plan = trial_of(attempt).plan
    launch = read_launch(plan)
    nodes = allocated(launch.nodes)
    held.retain(launch, plan)
    if not held.running:
        require_free_ports(launch, here(nodes))
    deployment = Deployment(launch, nodes, starter, held.running, plan=plan, raw=attempt)
    _measure(deployment, attempt, plan, launch, say)


def here(nodes: Nodes) -> dict[int, str]:
    """Index and address of the nodes that are the host of node 0, where an orchestrator runs."""
    known = zip(nodes.hosts, nodes.addresses, strict=True)
    return {index: address for index, (host, address) in enumerate(known) if host == nodes.hosts[0]}


def _measure(deployment: Deployment, attempt: Path, plan: Path, launch: Launch, say: Say) -> None:
    settings = read_settings(plan / "client.json", deployment.bind(launch.endpoint_url))
    limits = launch.deadlines
    bring_up(deployment, Patience(limits.quiet_s, limits.ready_s), say)
    warm_up(deployment, settings, say)
    drain(deployment, say)
    before = taken(deployment)
    client = deployment.start(deployment.client())
    with Scraper(deployment.servers(), deployment.nodes, attempt / PROBE_FOLDER):
        _follow(deployment, client, say)
        drain(deployment, say)
    require_spread(deployment, before)


def _follow(deployment: Deployment, client: Running, say: Say) -> None:
    """Wait for the client's end, passing on what it says. Raises Broken where it or anything else fails."""
    with client.log.open(encoding="utf-8", errors="replace") as log:
        code, begun = None, ""
        while code is None:
            deployment.require_alive()
            code = client.started.poll()
            *lines, begun = (begun + log.read()).split("\n")
            for line in lines:
                say(f"client  {line}")
            time.sleep(POLL_S)
    if code:
        deployment.require_lent()
        raise Broken(
            f"the load client ended {ending(code)}; the last lines of its log:\n{last_lines(client.log)}"
        )
