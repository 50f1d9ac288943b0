"""`python -m tune`, and `tune` where it is installed."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""Before numpy comes in: what is multiplied here is small, and handing it to threads takes longer."""

from tune.cli.main import run  # noqa: E402


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
