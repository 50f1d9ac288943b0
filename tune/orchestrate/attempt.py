"""One attempt, from free ports to its record: the same on a laptop and in an allocation."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tune.client.settings import read_settings
from tune.deploy.launch import Launch, read_launch
from tune.errors import TuneError
from tune.orchestrate.before import require_free_ports
from tune.orchestrate.broken import Broken, Cause, last_lines
from tune.orchestrate.deployment import POLL_S, Deployment, Nodes, Running, Say, ending
from tune.orchestrate.guardian import STOPPING
from tune.orchestrate.kin import end_descendants
from tune.orchestrate.readiness import Patience, bring_up
from tune.orchestrate.scraper import Scraper
from tune.orchestrate.starter import Starter
from tune.orchestrate.warm_up import drain, require_spread, taken, warm_up
from tune.results.folder import PROBE_FOLDER, trial_of, write_attempt
from tune.results.record import AttemptRecord

INTERRUPTED = 130

Allocated = Callable[[int], Nodes]
"""The hosts for so many node indices; those with the name of node 0 are this host."""


def run_attempt(attempt: Path, allocated: Allocated, starter: Starter, say: Say) -> int:
    """Run the trial's plan and leave attempt.json in the folder `attempt`, whatever happens.

    Everything that was started has ended when this returns. Exit code: 0 the probe is there, 1 the point is
    wrong, 3 the world is, 130 interrupted.
    """
    started, began_s = datetime.now(UTC), time.monotonic()
    error: str | None = None
    cause: Cause | None = None
    code = 0
    try:
        _run(attempt, allocated, starter, say)
    except KeyboardInterrupt:
        error, cause, code = f"interrupted after {time.monotonic() - began_s:.0f} s", "world", INTERRUPTED
    except Broken as broken:
        error, cause, code = str(broken), broken.cause, 1 if broken.cause == "point" else 3
    except TuneError as known:
        error, cause, code = str(known), "world", 3
    except Exception:  # a fault of ours fails the attempt with its trace; the study goes on
        error, cause, code = traceback.format_exc(), "world", 3
    record = AttemptRecord(
        started_at=started.isoformat(),
        ended_at=datetime.now(UTC).isoformat(),
        held_s=time.monotonic() - began_s,
        error=error,
        cause=cause,
    )
    write_attempt(attempt, record)
    say(f"attempt {attempt.name}: {'measured' if error is None else error.splitlines()[0]}")
    return code


def _run(attempt: Path, allocated: Allocated, starter: Starter, say: Say) -> None:
    plan = trial_of(attempt).plan
    launch = read_launch(plan)
    nodes = allocated(launch.nodes)
    require_free_ports(launch, here(nodes))
    deployment = Deployment(launch, nodes, starter, plan=plan, raw=attempt, say=say)
    try:
        _measure(deployment, attempt, plan, launch, say)
    finally:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        deployment.stop()
        left = end_descendants()
        say("stopped" if not left else f"stopped; {left} processes that it had started were killed")
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        raise Broken(
            f"the load client ended {ending(code)}; the last lines of its log:\n{last_lines(client.log)}"
        )
