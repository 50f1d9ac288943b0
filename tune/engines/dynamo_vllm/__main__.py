"""Print the steps of a vLLM worker as CSV: python -m tune.engines.dynamo_vllm LOG."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from tune.engines.dynamo_vllm.iteration_log import Iteration, read_iterations


def main() -> int:
    """Print a row for each step in the log that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tune.engines.dynamo_vllm", description=__doc__)
    parser.add_argument("log", type=Path)
    path = parser.parse_args().log
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            rows = list(read_iterations(lines))
    except OSError as error:
        print(f"{path}: {error.strerror}; expected the log of a worker", file=sys.stderr)
        return 2
    csv.writer(sys.stdout).writerows([Iteration._fields, *rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
