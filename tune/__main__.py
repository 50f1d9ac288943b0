"""Run the command line: `python -m tune`, and `tune` where it is installed."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""Set before numpy is imported: the matrices here are small, and handing them to threads takes longer."""

gc.set_threshold(100_000)
"""Set before the imports: they make many objects that stay, and looking for garbage among them takes time."""

from tune.cli.main import run_command_line  # noqa: E402

gc.freeze()  # what was imported stays to the end: no search for garbage looks at it again


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
