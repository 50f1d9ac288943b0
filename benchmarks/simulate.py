"""Measure how fast the simulator is, how its time grows with the query count, and what memory it takes.

    python benchmarks/simulate.py
    python benchmarks/simulate.py --counts 1000
    python benchmarks/simulate.py --aisimulate PATH/TO/aisimulate

One core, compiled loops, best of several runs, arrivals and lengths included. A "whole trial" is all that a
study does for a simulated trial: simulate, write LoadGen's logs and requests.npz, simulate further shuffles
near a limit, read, judge. Memory is the peak of a process of its own above the memory of its imports, with
the loops already compiled, as Linux counts it.

Where NVIDIA's AISimulate is installed (no dependency: `pip install --pre aisimulate` in an environment of its
own), its `predict` is timed on the same trace: its own "Wall Time", start-up left out.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aisimulate_trace import ITS_TIMEOUT_S, predicted, write_configuration
from deepseek_r1_run import published_trial

from tune.analysis.measure import measure
from tune.backends.simulated import simulate_attempt
from tune.config import compose_overrides
from tune.loadgen.latencies import answered, latencies, percentiles_s
from tune.records.folders import PROBE_FOLDER
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.metrics import TPOT, TTFT
from tune.spec.trial import TrialSpec

COUNTS = (1_000, 10_000, 100_000, 1_000_000)
RUNS = 5
RANKED_QUERIES = 50_000


def best_s(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several runs."""
    times_s = []
    for _ in range(RUNS):
        begin_s = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - begin_s)
    return min(times_s)


def shipped() -> tuple[TrialSpec, Calibration]:
    """Return the default trial and the calibration of the simulator, as shipped."""
    settings = compose_overrides(()).settings
    assert settings.cluster.calibration is not None
    return settings.trial_spec, settings.cluster.calibration


def with_queries(spec: TrialSpec, count: int) -> TrialSpec:
    """Return the trial with `count` queries."""
    change = {"min_queries": count, "min_duration_s": 1.0, "concatenate_permutation": False}
    return spec.model_copy(update={"load": spec.load.model_copy(update=change)})


def whole_trial(spec: TrialSpec, calibration: Calibration) -> int:
    """Run and judge one trial in a new folder; return the number of simulated shuffles."""
    with tempfile.TemporaryDirectory() as folder:
        attempt = Path(folder) / "1"
        simulate_attempt(spec, calibration, attempt, lambda _activity: None)
        probe = measure(attempt / PROBE_FOLDER, spec, PROBE_FOLDER)
    return probe.spread.shuffles if probe.spread else 1


def held_bytes() -> int:
    """Return the memory that this process holds now. Source: man 5 proc, /proc/self/statm."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """Return the peak memory of this process since the last reset. Linux counts ru_maxrss in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def print_memory(count: int) -> None:
    """Print the peak memory in MB of a whole default trial (`count` 0) or of one simulation."""
    spec, calibration = shipped()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: man 5 proc
    before = held_bytes()
    if count:
        simulate_serving(with_queries(spec, count), calibration)
    else:
        whole_trial(spec, calibration)
    print(f"{(peak_bytes() - before) / 1e6:.0f}")


def memory_mb(count: int) -> str:
    """Return the output of `print_memory` in a process of its own."""
    words = [sys.executable, __file__, "--memory-of", str(count)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def print_speed(counts: tuple[int, ...]) -> None:
    """Print time and memory of the default trial and of simulations of `counts` queries."""
    spec, calibration = shipped()
    queries = spec.load.expected_queries
    print(f"{'queries':>10}{'seconds':>10}{'queries/s':>12}{'us/query':>10}{'MB':>6}")

    def line(count: int, seconds: float, memory: str, what: str) -> None:
        rates = f"{count / seconds:12.0f}{seconds / count * 1e6:10.2f}"
        print(f"{count:10}{seconds:10.4f}{rates}{memory:>6}  {what}".rstrip(), flush=True)

    line(
        queries,
        best_s(lambda: simulate_serving(spec, calibration)),
        memory_mb(queries),
        "default trial, simulated",
    )
    shuffles = whole_trial(spec, calibration)
    whole_s = best_s(lambda: whole_trial(spec, calibration))
    what = f"whole trial: logs, parsing, {shuffles} shuffles; {1 / whole_s:.1f} trials/s"
    line(queries * shuffles, whole_s, memory_mb(0), what)
    for count in counts:
        longer = with_queries(spec, count)
        line(count, best_s(lambda longer=longer: simulate_serving(longer, calibration)), memory_mb(count), "")  # type: ignore[misc]


def print_ranks() -> None:
    """Print the time of DeepSeek-R1 on decode workers of sixteen ranks, with draft tokens."""
    with tempfile.TemporaryDirectory() as folder:
        spec, calibration = published_trial(Path(folder))
        ranked = with_queries(spec, RANKED_QUERIES)
        seconds = best_s(lambda: simulate_serving(ranked, calibration))
    rates = f"{RANKED_QUERIES / seconds:12.0f}{seconds / RANKED_QUERIES * 1e6:10.2f}"
    print(
        f"{RANKED_QUERIES:10}{seconds:10.4f}{rates}{'':6}  DeepSeek-R1, {spec.split.label}, 16 ranks a worker"
    )


def print_beside(program: str) -> None:
    """Print what both simulators predict for the arrivals and lengths of the default trial."""
    spec, calibration = shipped()
    log = simulate_serving(spec, calibration)
    seconds = best_s(lambda: simulate_serving(spec, calibration))
    times = latencies(log, answered(log))
    ttft, tpot = percentiles_s(times[TTFT]), percentiles_s(times[TPOT])
    assert ttft is not None
    assert tpot is not None
    print(f"\n{len(log)} queries, {spec.split.label}, the same trace")
    print(f"{'':12}{'seconds':>10}{'TTFT mean s':>13}{'p99 s':>8}{'TPOT mean ms':>14}{'p99 ms':>8}")

    def line(name: str, *figures: float) -> None:
        seconds, ttft_mean_s, ttft_p99_s, tpot_mean_s, tpot_p99_s = figures
        print(
            f"{name:12}{seconds:10.3f}{ttft_mean_s:13.2f}{ttft_p99_s:8.2f}"
            f"{tpot_mean_s * 1e3:14.1f}{tpot_p99_s * 1e3:8.1f}",
            flush=True,
        )

    line("tune", seconds, ttft.mean, ttft.p99, tpot.mean, tpot.p99)
    with tempfile.TemporaryDirectory() as folder:
        configuration = write_configuration(Path(folder), spec, log)
        line("AISimulate", *predicted(program, configuration))


def main() -> None:
    """Measure what the command line names."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--counts", type=int, nargs="*", default=COUNTS)
    words.add_argument("--aisimulate", default=shutil.which("aisimulate"), help="its program, if not on PATH")
    words.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.memory_of is not None:
        print_memory(given.memory_of)
        return
    print_speed(tuple(given.counts))
    print_ranks()
    if given.aisimulate:
        print_beside(given.aisimulate)
    else:
        print(f"\nAISimulate is not on PATH: not compared (it may take up to {ITS_TIMEOUT_S:.0f} s)")


if __name__ == "__main__":
    main()
