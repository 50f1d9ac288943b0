"""Run attempts of trials from the command line.

`python -m tune.orchestrator ATTEMPT [--parent PID]` runs one attempt with every process on this host.

`python -m tune.orchestrator ATTEMPT --slurm` runs it with every process as a step of the Slurm job around it.

`python -m tune.orchestrator --job JOB` runs the attempts in the queue of the folder JOB in that Slurm job.

`python -m tune.orchestrator --node-check FOLDER` reports on the node of a Slurm job into FOLDER, which holds
a plan, and runs no attempt.

ATTEMPT is the folder TRIAL/raw/N; the plan is read from TRIAL/plan. Exit codes: those of
tune.orchestrator.attempt.run_attempt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tune.orchestrator.slurm.batch_step import (
    print_line,
    run_allocation,
    run_node_check,
    run_single_attempt,
)
from tune.orchestrator.supervision.supervisor import run_supervised


def main(arguments: Sequence[str]) -> int:
    """Run the attempts that `arguments` name in a supervised child and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tune.orchestrator", description="Run attempts of trials."
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("attempt", type=Path, nargs="?", help="the folder of one attempt: TRIAL/raw/N")
    target.add_argument("--job", help="the folder of an allocation: STUDY/jobs/N")
    target.add_argument("--node-check", type=Path, metavar="FOLDER", help="where to report on this node")
    parser.add_argument("--slurm", action="store_true", help="ATTEMPT runs in the Slurm job around this")
    parser.add_argument("--parent", type=int, help="stop when this process, the parent, has ended")
    options = parser.parse_args(arguments)
    if options.job:
        return run_allocation(options.job)
    if options.node_check:
        return run_node_check(options.node_check)
    attempt = options.attempt.resolve()
    if options.slurm:
        return run_single_attempt(attempt)
    return run_supervised(lambda scratch: _run(attempt, scratch), options.parent)


def _run(attempt: Path, scratch: Path) -> int:
    """Run the attempt with every process on this host; return its exit code."""
    # The child alone imports these: the supervisor, which lives for hours, stays small.
    from tune.orchestrator.attempt import run_attempt  # noqa: PLC0415
    from tune.orchestrator.held_timer import HeldTimer  # noqa: PLC0415
    from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses  # noqa: PLC0415
    from tune.orchestrator.process_pool import ManagedProcesses  # noqa: PLC0415

    def local_addresses(count: int) -> NodeAddresses:
        """Return the loopback address of this host for each of `count` nodes."""
        return NodeAddresses(("localhost",) * count, ("127.0.0.1",) * count)

    held = HeldTimer(print_line)
    held.begin(attempt)
    try:
        return run_attempt(
            attempt,
            local_addresses,
            ChildProcessLauncher(scratch),
            print_line,
            ManagedProcesses(print_line, last=True),
        )
    finally:
        held.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
