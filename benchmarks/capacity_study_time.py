"""Measure the time of a capacity study on the simulated rack, as a user runs it.

    python benchmarks/capacity_study_time.py [--trials 12] [--cores 2]

The study `+sweep=pd_split load.mode=capacity` runs twice in folders of its own, up to its report: first with
an empty cache of prefill pools, then with the pools of the first. The loops are compiled before. A line holds
the trials, the wall time, the processor time of all processes and threads, and the best rate. Where other
programs use the cores, compare the processor times.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

COMMAND = (sys.executable, "-m", "tune")
STUDY = ("+sweep=pd_split", "load.mode=capacity", "study.name=timed")


def processor_s() -> float:
    """Return the processor time of all processes that have ended, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed_study(folder: Path, trials: int, cores: int, environment: dict[str, str]) -> str:
    """Run the study in a new folder; return its line."""
    folder.mkdir()
    overrides = [f"study.n_trials={trials}", f"cluster.processes={cores}"]
    began_s, used_s = time.perf_counter(), processor_s()
    subprocess.run(
        [*COMMAND, *STUDY, *overrides], cwd=folder, env=environment, check=True, capture_output=True
    )
    took_s, used_s = time.perf_counter() - began_s, processor_s() - used_s
    outcomes = [json.loads(path.read_text()) for path in folder.glob("runs/timed/*/outcome.json")]
    best = max(outcome["output_tps_per_gpu"] or 0.0 for outcome in outcomes if outcome["feasible"])
    return (
        f"{len(outcomes):3} trials  {took_s:6.1f} s  processor {used_s:6.1f} s  best {best:.1f} tokens/s/GPU"
    )


def main() -> None:
    """Run both studies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {options.cores} cores")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        environment = os.environ | {"XDG_CACHE_HOME": str(root / "cache")}
        subprocess.run([*COMMAND, *STUDY[1:2]], cwd=root, env=environment, check=True, capture_output=True)
        for name in ("empty cache", "pools kept"):
            line = timed_study(root / name.replace(" ", "-"), options.trials, options.cores, environment)
            print(f"{name:12} {line}", flush=True)


if __name__ == "__main__":
    main()
