"""`python -m tune`, and `tune` where it is installed."""

from __future__ import annotations

import sys

from tune.cli import run


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
