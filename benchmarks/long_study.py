"""Measure a study of thousands of trials: each step of the loop, memory, resuming, the report, long logs.

    python benchmarks/long_study.py [--trials 2000] [--search tpe] [--log-lines 2200000]

The study +sweep=pd_split runs in this process on the simulated rack, with short runs of 500 queries. A step
is what the loop takes for one trial besides its simulation: to suggest the point, render the plan, judge,
record, and let the search observe. Then the same command resumes the finished study, action=report writes the
page, and action=parse reads a log of LoadGen with millions of lines, each in a process of its own. Where
other programs use the cores, compare the seconds of the processor.
"""

from __future__ import annotations

# isort: split
import tune.__main__  # noqa: F401  as the command does, before numpy comes in

# isort: split
import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from machine import children_cpu_s, cpus

from tune.backends.simulated import SimulatorBackend
from tune.config import compose_overrides, trial_overrides
from tune.records.outcome import Outcome
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.listener import StudyListener
from tune.study.loop import open_study, run_study

STUDY = (
    *("+sweep=pd_split", "study.name=long", "study.parallel=1", "load.min_duration_s=60"),
    *("load.min_queries=500", "load.concatenate_permutation=false"),
)
LINES = 10
"""Number of lines that are printed about the steps."""

POLL_S = 0.02
"""Pause between two looks at the memory of a command, in seconds."""

PUBLISHED = Path(__file__).parents[1] / "tests" / "data" / "loadgen" / "v5.0.25_published"


class TimedSimulator(SimulatorBackend):
    """Add up the seconds of all simulations, by the clock and of the processor."""

    simulated_s = np.zeros(2)

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        """Simulate an attempt."""
        began_s = clocks_s()
        handle = super().submit(spec, attempt)
        self.simulated_s = self.simulated_s + clocks_s() - began_s
        return handle


class Steps(StudyListener):
    """Keep the milliseconds of every step, and print them from time to time."""

    def __init__(self, backend: TimedSimulator, trials: int) -> None:
        self._backend, self._every = backend, max(1, trials // LINES)
        self._last_s, self._steps_ms = clocks_s(), np.empty((0, 2))

    def recorded(self, outcome: Outcome) -> None:
        """Note the end of a step."""
        step_ms = 1e3 * (clocks_s() - self._last_s - self._backend.simulated_s)
        self._steps_ms = np.vstack([self._steps_ms, step_ms])
        if len(self._steps_ms) % self._every == 0:
            latest_ms = self._steps_ms[-self._every :]
            (wall_ms, processor_ms), slow = np.median(latest_ms, axis=0), (latest_ms > 100).sum(axis=0)
            print(
                f"{len(self._steps_ms):6} trials  step {wall_ms:5.0f} ms median ({slow[0]} over 100 ms), "
                f"processor {processor_ms:5.0f} ms ({slow[1]} over 100 ms)  {resident_mb():.0f} MB",
                flush=True,
            )
        self._last_s, self._backend.simulated_s = clocks_s(), np.zeros(2)


def clocks_s() -> np.ndarray:
    """Return the seconds of a clock, and those for which the processor has worked for this process."""
    return np.array([time.perf_counter(), time.process_time()])


def resident_mb(process: int | str = "self") -> float:
    """Return the memory of a process, 0 where it has ended. Source: proc(5), /proc/PID/statm."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(words: tuple[str, ...], runs: Path, trials: int) -> None:
    """Run the study."""
    settings = compose_overrides(words).settings
    assert settings.cluster.calibration
    record = study_record(settings, "long", words)
    with (
        open_study(runs / "long", record) as folder,
        TimedSimulator(settings.cluster.calibration, 0) as backend,
    ):
        overrides = partial(trial_overrides, settings=settings)
        run_study(folder, settings, backend, overrides, Steps(backend, trials))


def timed(name: str, words: tuple[str, ...], folder: Path) -> None:
    """Run a command, and print its wall time, processor time and most memory."""
    began_s = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-m", "tune", *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    used_s, most_mb = children_cpu_s(), 0.0
    while command.poll() is None:
        most_mb = max(most_mb, resident_mb(command.pid))
        time.sleep(POLL_S)
    took_s = time.perf_counter() - began_s
    assert command.returncode in (0, 1), words
    used_s = children_cpu_s() - used_s
    print(f"{name:22} {took_s:5.1f} s, processor {used_s:5.1f} s, {most_mb:.0f} MB at most", flush=True)


def write_long_log(folder: Path, added_lines: int) -> float:
    """Write the published log with `added_lines` more; return its size in MB."""
    name = "mlperf_log_detail.txt"
    text = (PUBLISHED / name).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    error = next(line for line in lines if "early_stopping_result" in line or "result_validity" in line)
    more = error.replace("early_stopping_result", "logged_error").replace("result_validity", "logged_error")
    folder.mkdir()
    with (folder / name).open("w", encoding="utf-8") as log:
        log.writelines(more for _ in range(added_lines))
        log.write(text)
    return (folder / name).stat().st_size / 1e6


def main() -> None:
    """Run the study, and the commands on it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--search", default="tpe")
    parser.add_argument("--log-lines", type=int, default=2_200_000)
    options = parser.parse_args()
    words = (*STUDY, f"study.n_trials={options.trials}", f"search={options.search}")
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    print(f"{datetime.now(UTC):%Y-%m-%d}, {options.search}, {cpus()} CPUs with a load average of {load}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run(words, folder / "runs", options.trials)
        timed("the command again", words, folder)
        timed("action=report", ("report", "study.name=long"), folder)
        timed("action=status", ("status", "study.name=long"), folder)
        size_mb = write_long_log(folder / "logs", options.log_lines)
        timed(f"action=parse, {size_mb:.0f} MB", ("parse", "logs=logs"), folder)


if __name__ == "__main__":
    main()
