"""Measure how long `python -m tune` takes for one trial, against the import of three libraries that it uses.

    python benchmarks/startup_time.py [--pairs 5]

The two commands run in turn, so a busy machine slows both; quote the ratios. A first pair is not counted: it
compiles the simulator, and fills caches.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from statistics import median

from machine import children_cpu_s, cpus

COMMANDS = {
    "one trial": [sys.executable, "-m", "tune"],
    "status": [sys.executable, "-m", "tune", "status", "study.name=single-sim"],
    "imports": [sys.executable, "-c", "import pandas, optuna, hydra"],
}


def cost(words: list[str], folder: str) -> tuple[float, float]:
    """Return CPU and elapsed seconds of a command in `folder`."""
    cpu_s, started_s = children_cpu_s(), time.perf_counter()
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    return children_cpu_s() - cpu_s, time.perf_counter() - started_s


def main() -> None:
    """Run the pairs and print medians and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    rounds = []
    for _ in range(pairs + 1):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append({name: cost(words, folder) for name, words in COMMANDS.items()})
    counted = rounds[1:]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cpus()} CPUs, {pairs} pairs, medians")
    for name in COMMANDS:
        cpu_s, wall_s = (median(taken[name][kind] for taken in counted) for kind in (0, 1))
        ratio = median(taken[name][0] / taken["imports"][0] for taken in counted)
        wall = median(taken[name][1] / taken["imports"][1] for taken in counted)
        print(f"{name:<10} CPU {cpu_s:5.2f} s  elapsed {wall_s:5.2f} s  ratios {ratio:4.2f} and {wall:4.2f}")


if __name__ == "__main__":
    main()
