"""Compare what the simulator predicted of deployments on GPUs with what was measured after that.

    python benchmarks/gpu_predictions.py [FOLDER] [--aggregated]
    python benchmarks/gpu_predictions.py [FOLDER] [--aggregated] --rack NAME
    python benchmarks/gpu_predictions.py [FOLDER] [--aggregated] --gaps

FOLDER is what scripts/gpu_predictions.sh left; without it, the run that is kept as test data: on two GPUs, or
on one with an aggregated worker. The table holds the predictions as they were written before each
measurement. With --rack the measured trials are simulated now, on cluster/NAME.yaml of FOLDER: what a changed
simulator or another calibration would have said. Each cell is predicted / measured and the error. --gaps
shows by how much clients' TPOT is longer than the steps of the decode worker's log, with a line fitted over
the tokens that arrive in a step; of an aggregated worker, how long it had requests in flight, what of that
its log has as steps, and what lies between two steps, with a plane fitted over their sequences and the share
of steps with prompts that run without a CUDA graph; and by how much the table of the calibrating trial is off
in the sum of mixed steps and of others.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune import compose, simulate
from tune.analysis.measure import REQUESTS_FILE
from tune.core.arrays import FloatArray
from tune.records.folders import PROBE_FOLDER, StudyFolder
from tune.records.outcome import Outcome
from tune.records.requests import RequestLog, read_requests
from tune.sim.simulator import simulate_requests
from tune.sim.step_tables import decode_steps, prefill_table
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

KEPT = Path(__file__).parents[1] / "tests" / "data" / "gpu"
TWO_GPUS, AGGREGATED = KEPT / "h200_x2_predictions.tar.xz", KEPT / "h200_aggregated.tar.xz"
TRIALS = ("repeat", "rate", "chunk", "batch", "answers", "prompts", "eager")
AGGREGATED_TRIALS = ("low", "rate", "budget", "seqs", "prompts", "answers")
LARGEST_GRAPH = 512
"""Tokens of the largest step that vLLM runs as a CUDA graph; twice max_num_seqs where that is less.

Source: vLLM 0.23.0, vllm/config/vllm.py (max_cudagraph_capture_size).
"""

FIRST_QUERIES = 400
"""Of the trial `fresh`, which was stopped a second before its end: all of these were answered."""


@dataclass(frozen=True)
class Figure:
    """Name a figure of an outcome, and say how it is read and printed."""

    title: str
    read: Callable[[Outcome], float]
    decimals: int


def latency(metric: str, statistic: str) -> Callable[[Outcome], float]:
    """Return the reader of a statistic of `ttft_s` or `tpot_s`, in milliseconds."""
    return lambda outcome: 1e3 * getattr(getattr(outcome, metric), statistic)


FIGURES = (
    Figure("TTFT mean, ms", latency("ttft_s", "mean"), 0),
    Figure("TTFT p50, ms", latency("ttft_s", "p50"), 0),
    Figure("TTFT p99, ms", latency("ttft_s", "p99"), 0),
    Figure("TPOT mean, ms", latency("tpot_s", "mean"), 1),
    Figure("TPOT p99, ms", latency("tpot_s", "p99"), 1),
)


def outcome_of(folder: Path, study: str) -> Outcome:
    """Return the outcome of the only trial of a study below `folder`."""
    (trial,) = StudyFolder(folder / study).trials()
    outcome = trial.read_outcome()
    assert outcome is not None, f"{trial.path} has no outcome"
    return outcome


def spec_of(folder: Path, study: str) -> TrialSpec:
    """Return the spec of the only trial of a study below `folder`."""
    (trial,) = StudyFolder(folder / study).trials()
    spec = trial.read_spec()
    assert spec is not None, f"{trial.path} has no spec.json"
    return spec


def simulated(folder: Path, study: str, rack: str) -> Outcome:
    """Simulate the trial of a measured study on cluster/RACK.yaml of `folder`."""
    return simulate(spec_of(folder, study), calibration_of(folder, rack))


def calibration_of(folder: Path, rack: str) -> Calibration:
    """Return the calibration of cluster/RACK.yaml of `folder`."""
    calibration = compose([f"cluster={rack}"], [folder]).cluster.calibration
    assert calibration is not None, f"{rack} is no simulated rack"
    return calibration


def interrupted(folder: Path, rack: str) -> str:
    """Return the row of the trial that was stopped as its last queries ran, by its first FIRST_QUERIES."""
    (trial,) = StudyFolder(folder / "fresh").trials()
    spec = spec_of(folder, "fresh")
    measured = read_requests(trial.attempts()[0] / PROBE_FOLDER / REQUESTS_FILE)
    answer_tokens = spec.load.dataset.longest_answer_tokens
    lengths = (measured.input_tokens, np.full_like(measured.output_tokens, answer_tokens))
    predicted = simulate_requests(spec, calibration_of(folder, rack), measured.scheduled_ns, lengths)
    cells = [
        cell(one, other, figure.decimals)
        for figure, one, other in zip(FIGURES, first_figures(predicted), first_figures(measured), strict=True)
    ]
    return f"| fresh | {' | '.join(cells)} |"


def first_figures(log: RequestLog) -> list[float]:
    """Return the values of FIGURES of the first FIRST_QUERIES, milliseconds."""
    ttft = (log.first_token_ns - log.scheduled_ns)[:FIRST_QUERIES] / 1e6
    tpot = (log.done_ns - log.first_token_ns)[:FIRST_QUERIES] / 1e6 / (log.output_tokens[:FIRST_QUERIES] - 1)
    assert (log.done_ns[:FIRST_QUERIES] > 0).all()
    return [ttft.mean(), np.median(ttft), np.quantile(ttft, 0.99), tpot.mean(), np.quantile(tpot, 0.99)]


def gaps(folder: Path) -> list[str]:
    """Return the table of the gaps between logged steps, and the line over received tokens."""
    lines = ["| trial | TPOT - logged step, ms | batch | received a step, tokens |", "|---" * 4 + "|"]
    gap_ms, received = [], []
    for study in ("calibration", *(name for name in TRIALS if name != "eager")):
        outcome, spec = outcome_of(folder, study), spec_of(folder, study)
        (log,) = (folder / study).glob("t*/raw/1/logs/*decode_w0_steps.csv.gz")
        with gzip.open(log, "rt") as file:
            steps = [
                (int(row["generation_requests"]) + int(row["context_requests"]), float(row["elapsed_s"]))
                for row in csv.DictReader(file)
                if int(row["generation_requests"])
            ]
        batch, step_s = np.array(steps).T  # a token is in each step once for each sequence
        tpot_s, rate = outcome.tpot_s.mean, outcome.completed_qps
        assert tpot_s is not None
        assert rate is not None
        gap_ms.append(1e3 * (tpot_s - np.average(step_s, weights=batch)))
        received.append(rate * tpot_s * spec.load.dataset.longest_prompt_tokens)
        size = np.average(batch, weights=batch)
        lines.append(f"| {study} | {gap_ms[-1]:.2f} | {size:.0f} | {received[-1]:.0f} |")
    slope, start = np.polyfit(received, gap_ms, 1)
    off_ms = max(abs(np.polyval([slope, start], received) - gap_ms))
    return [*lines, f"{start:.2f} ms + {1e3 * slope:.2f} us a token, none off by more than {off_ms:.2f} ms"]


def aggregated_gaps(folder: Path) -> list[str]:
    """Return the table of what lies between steps of an aggregated worker, and of its steps by the table."""
    calibration = calibration_of(folder, "h200_measured")
    assert calibration.prefill_steps
    assert calibration.decode_steps
    table = prefill_table(calibration.prefill_steps)
    alone_s = decode_steps(calibration.decode_steps, 256, 1.0).batch_s[:, 0]
    titles = ("trial", "in flight, s", "logged, s", "gap, ms", "sequences", "no graph", "mixed", "others")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    gap_ms, causes = [], []
    for study in ("calibration", *AGGREGATED_TRIALS, "capacity"):
        (trial,) = StudyFolder(folder / study).trials()
        attempt = trial.attempts()[0]
        busy_s = sum(map(in_flight_s, attempt.glob(f"probe-*/{REQUESTS_FILE}")))
        steps = logged_steps(attempt / "logs" / "localhost_aggregated_w0_steps.csv.gz")
        mixed, tokens, step_s = steps[:, 0] > 0, steps[:, 1] + steps[:, 3], steps[:, 4]
        largest_graph = min(LARGEST_GRAPH, 2 * spec_of(folder, study).decode.max_sequences)
        without_graph = (mixed & (tokens > largest_graph)).mean()
        mixed_s = np.interp(tokens[mixed], table.tokens, table.step_s[:, 0]).sum()
        others_s = alone_s[steps[~mixed, 2].astype(int)].sum()
        errors = (mixed_s / step_s[mixed].sum() - 1, others_s / step_s[~mixed].sum() - 1)
        gap_ms.append(1e3 * (busy_s - step_s.sum()) / len(steps))
        causes.append([1.0, (steps[:, 0] + steps[:, 2]).mean(), without_graph])
        cells = f"{busy_s:.1f} | {step_s.sum():.1f} | {gap_ms[-1]:.2f} | {causes[-1][1]:.0f}"
        lines.append(f"| {study} | {cells} | {without_graph:.0%} | {errors[0]:+.0%} | {errors[1]:+.0%} |")
    start_ms, sequence_ms, graph_ms = np.linalg.lstsq(causes, gap_ms)[0]
    off_ms = max(abs(np.array(causes) @ [start_ms, sequence_ms, graph_ms] - gap_ms))
    found = f"{start_ms:.1f} ms + {1e3 * sequence_ms:.0f} us a sequence + {graph_ms:.1f} ms without a graph"
    return [*lines, f"{found}, none off by more than {off_ms:.1f} ms"]


def logged_steps(log: Path) -> FloatArray:
    """Return prompts, their tokens, answers, their tokens and seconds of each step, shape (steps, 5)."""
    with gzip.open(log, "rt") as file:
        return np.array([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])


def in_flight_s(requests: Path) -> float:
    """Return the seconds of a probe in which it had a request in flight."""
    log = read_requests(requests)
    order = np.argsort(log.scheduled_ns)
    begun, ended = log.scheduled_ns[order], np.maximum.accumulate(log.done_ns[order])
    idle_ns = np.maximum(begun[1:] - ended[:-1], 0).sum()
    return float(ended[-1] - begun[0] - idle_ns) / 1e9


def highest_rate(outcome: Outcome) -> float:
    """Return the lower end of the capacity, queries/s."""
    assert outcome.capacity_qps is not None
    assert outcome.capacity_qps.low is not None
    return outcome.capacity_qps.low


def cell(predicted: float, measured: float, decimals: int) -> str:
    """Return predicted / measured and the error."""
    return f"{predicted:.{decimals}f} / {measured:.{decimals}f}  {predicted / measured - 1:+.0%}"


def rows(predictions: Sequence[tuple[str, Outcome, Outcome]]) -> list[str]:
    """Return the lines of the table of (name, predicted, measured)."""
    lines = ["| trial | " + " | ".join(figure.title for figure in FIGURES) + " |", "|---" * 6 + "|"]
    for name, predicted, measured in predictions:
        cells = [cell(figure.read(predicted), figure.read(measured), figure.decimals) for figure in FIGURES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Print the table, and the capacities."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--aggregated", action="store_true")
    parser.add_argument("--rack")
    parser.add_argument("--gaps", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if folder is None:
            folder = Path(scratch) / "kept"
            with tarfile.open(AGGREGATED if options.aggregated else TWO_GPUS) as tar:
                tar.extractall(folder, filter="data")

        if options.gaps:
            print("\n".join(aggregated_gaps(folder) if options.aggregated else gaps(folder)))
            return

        def predicted(study: str) -> Outcome:
            if options.rack:
                return simulated(folder, study, options.rack)
            return outcome_of(folder, f"predict_{study}")

        names = AGGREGATED_TRIALS if options.aggregated else TRIALS
        lines = rows([(name, predicted(name), outcome_of(folder, name)) for name in names])
        if options.rack and (folder / "fresh").exists():
            lines.append(interrupted(folder, options.rack))
        print("\n".join(lines))
        held = [highest_rate(outcome) for outcome in (predicted("capacity"), outcome_of(folder, "capacity"))]
        print(f"capacity, queries/s: {cell(held[0], held[1], 2)}")


if __name__ == "__main__":
    main()
