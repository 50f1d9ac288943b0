"""What runs came to, as rows and as tables."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from hidden.space import SETTINGS

CAP = 60
"""Deployments of a run that never comes near."""

STATES = (1, 3, 5, 8, 16)
NEAR = (0.05, 0.02)
MIN_GAIN = SETTINGS.study.min_gain
"""A study ends before a deployment that should gain less."""


@dataclass(frozen=True)
class Row:
    """After `deployments`, which cost `gpu_hours`, the method answers with a configuration of `regret`.

    `gain_frac`: what the last of them was expected to gain when it was proposed; None where nothing says."""

    rack: int
    noise_seed: int
    method: str
    deployments: int
    gpu_hours: float
    regret: float
    gain_frac: float | None = None


@dataclass(frozen=True)
class Stated:
    """Whether the stated rate is below the true boundary, how far below the best one, and what the search and
    then the confirmation cost."""

    holds: bool
    below_best_frac: float
    searched_gpu_hours: float
    confirmed_gpu_hours: float


def first(rows: Sequence[Row], near: float) -> tuple[float, float]:
    """Deployments and GPU-hours of one run to a regret of `near`; what CAP cost where it never was."""
    hit = next((row for row in rows if row.regret <= near), rows[-1])
    return (hit.deployments, hit.gpu_hours) if hit.regret <= near else (CAP, hit.gpu_hours)


def table(runs: Sequence[Sequence[Row]]) -> str:
    """Markdown, a row a method: medians to 5 % and 2 %, and the share of runs within 2 % after STATES."""
    lines = [
        "| method | runs | to 5 %: deployments | GPU-hours, median | mean | to 2 %: deployments | "
        "GPU-hours, median | mean | " + " | ".join(f"within 2 % at {n}" for n in STATES) + " |",
        "|---" * (8 + len(STATES)) + "|",
    ]  # fmt: skip
    for name in dict.fromkeys(rows[0].method for rows in runs):
        mine = [rows for rows in runs if rows[0].method == name]
        cells = [name, str(len(mine))]
        for near in NEAR:
            deployments, hours = zip(*(first(rows, near) for rows in mine), strict=True)
            cells += [f"{median(deployments):g}", f"{median(hours):,.0f}", f"{np.mean(hours):,.0f}"]
        for n in STATES:
            cells.append(f"{np.mean([rows[min(n, len(rows)) - 1].regret <= 0.02 for rows in mine]):.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ended_table(runs: Sequence[Sequence[Row]]) -> str:
    """Markdown, a row a method that says what it expects: where studies end by MIN_GAIN. Runs that do not
    are not among them."""
    lines = [
        "| method | runs that end by study.min_gain | deployments, median | GPU-hours, mean | "
        + " | ".join(f"within {near:.0%}" for near in NEAR)
        + " |",
        "|---" * (4 + len(NEAR)) + "|",
    ]
    for name in dict.fromkeys(rows[0].method for rows in runs if rows[-1].gain_frac is not None):
        mine = [row for rows in runs if rows[0].method == name and (row := _ended(rows))]
        cells = [
            name,
            str(len(mine)),
            f"{median(row.deployments for row in mine):g}",
            f"{np.mean([row.gpu_hours for row in mine]):,.0f}",
            *(f"{np.mean([row.regret <= near for row in mine]):.0%}" for near in NEAR),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ended(rows: Sequence[Row]) -> Row | None:
    """The last of a study that ends by MIN_GAIN; None where it goes on."""
    for row, after in pairwise(rows):
        if after.gain_frac is not None and after.gain_frac < MIN_GAIN:
            return row
    return None


def confirmed_table(told: Sequence[tuple[str, Stated]]) -> str:
    """Markdown, a row a method: what is stated after CONFIRMED_AFTER deployments and a confirmation."""
    lines = [
        "| method | stated rates | that hold | below the best, median | GPU-hours, median | to confirm |",
        "|---" * 6 + "|",
    ]
    for name in dict.fromkeys(name for name, _ in told):
        mine = [found for of, found in told if of == name]
        cells = [
            name,
            str(len(mine)),
            f"{np.mean([one.holds for one in mine]):.0%}",
            f"{median(one.below_best_frac for one in mine):.1%}",
            f"{median(one.searched_gpu_hours + one.confirmed_gpu_hours for one in mine):,.0f}",
            f"{median(one.confirmed_gpu_hours for one in mine):,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, runs: Sequence[Sequence[Row]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(list(Row.__dataclass_fields__))
        for rows in runs:
            for row in rows:
                gain = None if row.gain_frac is None else round(row.gain_frac, 5)
                cells = replace(
                    row, gpu_hours=round(row.gpu_hours, 1), regret=round(row.regret, 4), gain_frac=gain
                )
                writer.writerow(vars(cells).values())
