"""Hold what runs of the benchmark show, and render it as tables and as files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from synthetic_racks.space import SETTINGS
from tune.study.surrogate_proposer import MIN_OBSERVATIONS

CAP = 60
"""Deployments of a run that never reaches the regret in question."""

CHECKPOINTS = (1, 3, 5, 8, 16)
INTERVALS = max(CHECKPOINTS)
NEAR = (0.05, 0.02)
MIN_GAIN = SETTINGS.study.min_gain
"""Expected gain below which a study ends before its next deployment."""

DATA = Path(__file__).parents[1] / "data" / "synthetic_racks"
PUBLISHED_RUNS = DATA / "held_out_runs_2026-11-28.csv"


@dataclass(frozen=True)
class Row:
    """Hold the state of a run after `deployments`: their cost and the regret of the method's answer.

    `gain_frac`: expected gain of the last of them when it was suggested. `inside`: whether its 90 % interval
    contains what it measures, or would where it was stopped early. None if not predicted, or if it crashed.
    """

    rack: int
    noise_seed: int
    method: str
    deployments: int
    gpu_hours: float
    regret: float
    gain_frac: float | None = None
    inside: bool | None = None


@dataclass(frozen=True)
class RunSummary:
    """Hold one run: the cost to 5 % and to 2 % of regret, and regrets on the way.

    `at_N`: regret after N deployments. `ended_*`: where a study ends by MIN_GAIN; None if it goes on, and
    `predicts_gain` tells whether the method predicts a gain at all. `intervals`: of the first INTERVALS
    deployments, those that were predicted and did not crash; `inside`: those of them whose 90 % interval
    contains what is measured. None in files of runs that recorded neither.
    """

    rack: int
    noise_seed: int
    method: str
    deployments_to_5: int
    gpu_hours_to_5: float
    deployments_to_2: int
    gpu_hours_to_2: float
    at_1: float
    at_3: float
    at_5: float
    at_8: float
    at_16: float
    predicts_gain: bool
    ended_deployments: int | None
    ended_gpu_hours: float | None
    ended_regret: float | None
    intervals: int | None
    inside: int | None


@dataclass(frozen=True)
class Guaranteed:
    """Hold a guaranteed rate: whether it holds, how far it is below the best capacity, and both costs."""

    holds: bool
    below_best_frac: float
    searched_gpu_hours: float
    confirmed_gpu_hours: float


def first(rows: Sequence[Row], near: float) -> tuple[int, float]:
    """Return deployments and GPU-hours of a run to a regret of `near`; CAP and all hours if it never does."""
    hit = next((row for row in rows if row.regret <= near), rows[-1])
    return (hit.deployments, hit.gpu_hours) if hit.regret <= near else (CAP, hit.gpu_hours)


def summarise_run(rows: Sequence[Row]) -> RunSummary:
    """Summarise the rows of one run."""
    (to_5, hours_to_5), (to_2, hours_to_2) = (first(rows, near) for near in NEAR)
    ended = _ended(rows)
    predicted = [row.inside for row in rows[:INTERVALS] if row.inside is not None]
    return RunSummary(
        rack=rows[0].rack,
        noise_seed=rows[0].noise_seed,
        method=rows[0].method,
        deployments_to_5=to_5,
        gpu_hours_to_5=hours_to_5,
        deployments_to_2=to_2,
        gpu_hours_to_2=hours_to_2,
        **{f"at_{n}": rows[min(n, len(rows)) - 1].regret for n in CHECKPOINTS},
        predicts_gain=rows[-1].gain_frac is not None,
        ended_deployments=ended and ended.deployments,
        ended_gpu_hours=ended and ended.gpu_hours,
        ended_regret=ended and ended.regret,
        intervals=len(predicted),
        inside=sum(predicted),
    )


def regret_table(runs: Sequence[RunSummary]) -> str:
    """Render Markdown, a row a method: medians to 5 % and 2 %, and the share of runs within 2 %."""
    lines = [
        "| method | runs | to 5 %: deployments | GPU-hours, median | mean | to 2 %: deployments | "
        "GPU-hours, median | mean | " + " | ".join(f"within 2 % at {n}" for n in CHECKPOINTS) + " |",
        "|---" * (8 + len(CHECKPOINTS)) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(run.method for run in runs):
        chosen = [run for run in runs if run.method == name]
        cells = [name, str(len(chosen))]
        for near in (5, 2):
            deployments = [getattr(run, f"deployments_to_{near}") for run in chosen]
            hours = [getattr(run, f"gpu_hours_to_{near}") for run in chosen]
            cells += [f"{median(deployments):g}", f"{median(hours):,.0f}", f"{np.mean(hours):,.0f}"]
        for n in CHECKPOINTS:
            cells.append(f"{np.mean([getattr(run, f'at_{n}') <= 0.02 for run in chosen]):.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ended_table(runs: Sequence[RunSummary]) -> str:
    """Render Markdown, a row a method that predicts a gain: the runs in which a study ends by MIN_GAIN."""
    lines = [
        "| method | runs that end by study.min_gain | deployments, median | GPU-hours, mean | "
        + " | ".join(f"within {near:.0%}" for near in NEAR)
        + " |",
        "|---" * (4 + len(NEAR)) + "|",
    ]
    for name in dict.fromkeys(run.method for run in runs if run.predicts_gain):
        ended = [
            (run.ended_deployments, run.ended_gpu_hours or 0.0, run.ended_regret or 0.0)
            for run in runs
            if run.method == name and run.ended_deployments is not None
        ]
        cells = [
            name,
            str(len(ended)),
            f"{median(deployments for deployments, _, _ in ended):g}",
            f"{np.mean([hours for _, hours, _ in ended]):,.0f}",
            *(f"{np.mean([regret <= near for _, _, regret in ended]):.0%}" for near in NEAR),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval_table(runs: Sequence[RunSummary]) -> str:
    """Render Markdown, a row a method that predicts: how many 90 % intervals contain what is measured."""
    lines = ["| method | 90 % intervals | that contain what is measured |", "|---" * 3 + "|"]
    for name in dict.fromkeys(run.method for run in runs if run.intervals):
        chosen = [run for run in runs if run.method == name]
        intervals, inside = (sum(getattr(run, key) or 0 for run in chosen) for key in ("intervals", "inside"))
        lines.append(f"| {name} | {intervals:,} | {inside / intervals:.1%} |")
    return "\n".join(lines)


def _ended(rows: Sequence[Row]) -> Row | None:
    """Return the last row of a study that ends by MIN_GAIN; None where it goes on.

    The rule is that of SurrogateProposer.
    """
    for row, after in pairwise(rows):
        small = all(gain is not None and gain < MIN_GAIN for gain in (row.gain_frac, after.gain_frac))
        if row.deployments >= MIN_OBSERVATIONS and small:
            return row
    return None


def guaranteed_table(rates: Sequence[tuple[str, Guaranteed]]) -> str:
    """Render Markdown, a row a method: the rates that a confirmation guarantees."""
    lines = [
        "| method | guaranteed rates | that hold | below the best, median | GPU-hours, median | to confirm |",
        "|---" * 6 + "|",
    ]
    for name in dict.fromkeys(name for name, _ in rates):
        chosen = [rate for method, rate in rates if method == name]
        cells = [
            name,
            str(len(chosen)),
            f"{np.mean([rate.holds for rate in chosen]):.0%}",
            f"{median(rate.below_best_frac for rate in chosen):.1%}",
            f"{median(rate.searched_gpu_hours + rate.confirmed_gpu_hours for rate in chosen):,.0f}",
            f"{median(rate.confirmed_gpu_hours for rate in chosen):,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_rows(path: Path, runs: Sequence[Sequence[Row]]) -> None:
    """Write a CSV with a line a deployment."""
    digits = {"gpu_hours": 1, "regret": 4, "gain_frac": 5}
    _write(path, [field.name for field in fields(Row)], (row for run in runs for row in run), digits)


def write_runs(path: Path, runs: Sequence[RunSummary]) -> None:
    """Write a CSV with a line a run."""
    names = [field.name for field in fields(RunSummary)]
    digits = {name: 1 if "gpu_hours" in name else 4 for name in names if "_hours" in name or "at_" in name}
    _write(path, names, runs, digits | {"ended_regret": 4})


def read_runs(path: Path = PUBLISHED_RUNS) -> list[RunSummary]:
    """Return the runs of a file that `write_runs` wrote."""
    kinds = {"int": int, "float": float, "str": str, "bool": "True".__eq__}
    with path.open(newline="") as file:
        return [
            RunSummary(
                **{
                    field.name: kinds[str(field.type).split(" | ", 1)[0]](line[field.name])  # type: ignore[operator]
                    if line[field.name] or not str(field.type).endswith("None")
                    else None
                    for field in fields(RunSummary)
                }
            )
            for line in csv.DictReader(file)
        ]


def _write(
    path: Path, names: Sequence[str], rows: Iterable[Row | RunSummary], digits: dict[str, int]
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            values = asdict(row)
            for name, count in digits.items():
                if values[name] is not None:
                    values[name] = round(values[name], count)
            writer.writerow(values[name] for name in names)
