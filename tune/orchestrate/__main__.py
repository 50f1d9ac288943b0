"""`python -m tune.orchestrate ATTEMPT [--parent PID]`: one attempt of a trial, every process on this host.

ATTEMPT is the folder TRIAL/raw/N; the plan is read from TRIAL/plan. Exit codes: those of run_attempt.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tune.orchestrate.guardian import guarded


def main(arguments: Sequence[str]) -> int:
    """Run the attempt in a guarded child and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tune.orchestrate", description="Run one attempt.")
    parser.add_argument("attempt", type=Path, help="the folder of the attempt: TRIAL/raw/N")
    parser.add_argument("--parent", type=int, help="stop when this process, the parent, has ended")
    options = parser.parse_args(arguments)
    return guarded(lambda scratch: _run(options.attempt.absolute(), scratch), options.parent)


def _run(attempt: Path, scratch: Path) -> int:
    # Imported by the child alone: what a guardian holds for hours is small.
    from tune.orchestrate.attempt import run_attempt  # noqa: PLC0415
    from tune.orchestrate.deployment import Nodes  # noqa: PLC0415
    from tune.orchestrate.starter import ChildProcesses  # noqa: PLC0415

    def this_host(count: int) -> Nodes:
        return Nodes(("localhost",) * count, ("127.0.0.1",) * count)

    return run_attempt(attempt, this_host, ChildProcesses(scratch), _say)


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # whoever listened is gone; the attempt goes on
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
