"""`python -m tune.orchestrate ATTEMPT [--parent PID]`: one attempt of a trial, every process on this host.
`python -m tune.orchestrate ATTEMPT --slurm`: every process as a step of the Slurm job that this runs in.
`python -m tune.orchestrate --job JOB`: likewise, the attempts in the inbox of the folder JOB.

ATTEMPT is the folder TRIAL/raw/N; the plan is read from TRIAL/plan. Exit codes: those of run_attempt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tune.orchestrate.guardian import guarded
from tune.orchestrate.job import run_job, run_one, say


def main(arguments: Sequence[str]) -> int:
    """Do what is asked in a guarded child and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tune.orchestrate", description="Run attempts of trials.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("attempt", type=Path, nargs="?", help="the folder of one attempt: TRIAL/raw/N")
    what.add_argument("--job", help="the folder of an allocation: STUDY/jobs/N")
    parser.add_argument("--slurm", action="store_true", help="ATTEMPT runs in the Slurm job around this")
    parser.add_argument("--parent", type=int, help="stop when this process, the parent, has ended")
    options = parser.parse_args(arguments)
    if options.job:
        return run_job(options.job)
    attempt = options.attempt.resolve()
    if options.slurm:
        return run_one(attempt)
    return guarded(lambda scratch: _run(attempt, scratch), options.parent)


def _run(attempt: Path, scratch: Path) -> int:
    # Imported by the child alone: what a guardian holds for hours is small.
    from tune.orchestrate.attempt import run_attempt  # noqa: PLC0415
    from tune.orchestrate.held import Held  # noqa: PLC0415
    from tune.orchestrate.starter import ChildProcesses, Nodes  # noqa: PLC0415

    def this_host(count: int) -> Nodes:
        return Nodes(("localhost",) * count, ("127.0.0.1",) * count)

    return run_attempt(attempt, this_host, ChildProcesses(scratch), say, Held(say, last=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
