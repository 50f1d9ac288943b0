"""`python -m tune.orchestrator ATTEMPT [--parent PID]`: one attempt of a trial, every process on this host.
`python -m tune.orchestrator ATTEMPT --slurm`: every process as a step of the Slurm job that this runs in.
`python -m tune.orchestrator --job JOB`: likewise, the attempts in the inbox of the folder JOB.

ATTEMPT is the folder TRIAL/raw/N; the plan is read from TRIAL/plan. Exit codes: those of run_attempt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tune.orchestrator.slurm.batch_step import run_allocation, run_single_attempt, say
from tune.orchestrator.supervision.supervisor import run_supervised


def main(arguments: Sequence[str]) -> int:
    """Do what is asked in a guarded child and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tune.orchestrator", description="Run attempts of trials."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("attempt", type=Path, nargs="?", help="the folder of one attempt: TRIAL/raw/N")
    what.add_argument("--job", help="the folder of an allocation: STUDY/jobs/N")
    parser.add_argument("--slurm", action="store_true", help="ATTEMPT runs in the Slurm job around this")
    parser.add_argument("--parent", type=int, help="stop when this process, the parent, has ended")
    options = parser.parse_args(arguments)
    if options.job:
        return run_allocation(options.job)
    attempt = options.attempt.resolve()
    if options.slurm:
        return run_single_attempt(attempt)
    return run_supervised(lambda scratch: _run(attempt, scratch), options.parent)


def _run(attempt: Path, scratch: Path) -> int:
    # Imported by the child alone: what a guardian holds for hours is small.
    from tune.orchestrator.attempt import run_attempt  # noqa: PLC0415
    from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses  # noqa: PLC0415
    from tune.orchestrator.process_pool import ManagedProcesses  # noqa: PLC0415

    def this_host(count: int) -> NodeAddresses:
        return NodeAddresses(("localhost",) * count, ("127.0.0.1",) * count)

    return run_attempt(
        attempt, this_host, ChildProcessLauncher(scratch), say, ManagedProcesses(say, last=True)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
