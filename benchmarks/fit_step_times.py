"""Fit the step times of tune/sim/step_times.py to measured ones and write their coefficients.

    python benchmarks/fit_step_times.py            print errors
    python benchmarks/fit_step_times.py --write    also write tune/sim/data/step_time_coefficients.json

Least squares on the relative error, over all files and both phases together, each file and phase with the
same weight. No term may cost less than its roofline, none of the others less than nothing. Beside the error
stands the error on each file when the fit has not seen that file. Then come the rows that look like artefacts
of the measurement, by two rules, and the errors when the fit does without them.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

import tune.sim.step_times
from tune.config import compose_overrides
from tune.core.arrays import FloatArray
from tune.sim.step_times import GEMM_TILE_SEQUENCES, TERMS, step_terms

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "benchmarks" / "data" / "step_times"
TARGET = Path(tune.sim.step_times.__file__).parent / "data" / "step_time_coefficients.json"
SOURCE = (
    "benchmarks/fit_step_times.py over benchmarks/data/step_times: least squares on relative error, no term "
    "below its roofline. Those steps: measured kernel database of NVIDIA AIConfigurator 0.12.0 (Apache-2.0), "
    "TensorRT-LLM 1.3.0rc20, GB200, NVFP4 weights, FP8 KV cache, queried 2026-11-23."
)
MODELS = {"llama3.1-405b": "llama3_1_405b_fp4", "llama3.1-70b": "llama3_1_70b_fp4"}
PHASES = ("prefill", "decode")

AT_LEAST_ROOFLINE = ("weights", "gemm", "activations", "all_reduce", "attention", "kv")
"""Terms whose coefficient is 1 or more: nothing is faster than the data sheet."""

FALL = 0.01
"""A step is suspect that takes this much longer than one with more work of one kind and all else equal."""

BEND = 0.025
"""A step this far off the line between its two neighbours in context is suspect: the cost is affine there."""


@dataclass(frozen=True, eq=False)
class Part:
    """Hold one phase of one file: `rows` (n, 3) of batch, new tokens and context; `terms` (n, terms)."""

    name: str
    phase: str
    rows: FloatArray
    terms: FloatArray
    measured_s: FloatArray

    def only(self, keep: NDArray[np.bool_]) -> Part:
        """Return the rows to keep."""
        return Part(self.name, self.phase, self.rows[keep], self.terms[keep], self.measured_s[keep])

    def error(self, coefficients: FloatArray) -> FloatArray:
        """Return fitted over measured time - 1 of each row, shape (n,)."""
        return self.terms @ coefficients / self.measured_s - 1


def work(phase: str, rows: FloatArray) -> FloatArray:
    """Return how often a step does each of the fields of StepTimes, (n, 7), for `rows` (n, 3) of a Part."""
    batch, new, context = rows.T
    one = np.ones(len(rows))
    if phase == "prefill":
        columns = [one, batch * new, batch * new * (context + new / 2), *[0 * one] * 4]
    else:
        columns = [*[0 * one] * 3, one, np.ceil(batch / GEMM_TILE_SEQUENCES), batch, batch * context]
    return np.stack(columns, axis=1)


def load(path: Path) -> Iterator[Part]:
    """Yield both phases of one file."""
    name, tp = path.stem.split("-nvfp4_gb200_tp")
    settings = compose_overrides((f"model={MODELS[name]}", f"decode.tensor_parallel_size={tp}")).settings
    terms = step_terms(settings.model, settings.hardware, settings.decode)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    for phase in PHASES:
        keys = ("batch", "new_tokens", "context_tokens", "step_ms")
        values = np.array([[float(line[key]) for key in keys] for line in lines if line["phase"] == phase])
        yield Part(path.stem, phase, values[:, :3], work(phase, values[:, :3]) @ terms.T, values[:, 3] / 1e3)


def fit(parts: list[Part]) -> FloatArray:
    """Return the coefficients of TERMS, shape (terms,)."""
    least = np.array([float(name in AT_LEAST_ROOFLINE) for name in TERMS])
    weights = np.concatenate([np.full(len(part.rows), len(part.rows) ** -0.5) for part in parts])
    measured_s = np.concatenate([part.measured_s for part in parts])
    relative = np.concatenate([part.terms for part in parts]) / measured_s[:, None]
    solution: FloatArray = nnls(weights[:, None] * relative, weights * (1 - relative @ least))[0]
    return least + solution


def artefacts(part: Part) -> NDArray[np.bool_]:
    """Return whether each row is suspect by FALL or BEND, shape (n,)."""
    found = np.zeros(len(part.rows), bool)
    for axis in range(3):
        for line in lines_along(part.rows, axis):
            step_s = part.measured_s[line]
            found[line[:-1]] |= step_s[1:] < (1 - FALL) * step_s[:-1]
            if axis == 2 and len(line) > 2:
                context = part.rows[line, 2]
                share = (context[1:-1] - context[:-2]) / (context[2:] - context[:-2])
                between_s = (1 - share) * step_s[:-2] + share * step_s[2:]
                found[line[1:-1]] |= np.abs(step_s[1:-1] / between_s - 1) > BEND
    return found


def lines_along(rows: FloatArray, axis: int) -> Iterator[list[int]]:
    """Return the indices of rows that differ only in column `axis`, in its order."""

    def others(index: int) -> list[float]:
        return [float(value) for column, value in enumerate(rows[index]) if column != axis]

    order = sorted(range(len(rows)), key=lambda index: (others(index), rows[index, axis]))
    for _, line in groupby(order, key=others):
        yield list(line)


def summary(error: FloatArray) -> str:
    percent = np.abs(error) * 100
    return f"{percent.mean():5.1f} {np.quantile(percent, 0.95):5.1f} {percent.max():5.1f}"


def print_errors(parts: list[Part]) -> None:
    print(f"{'error %, mean p95 worst':42}| seen              | file not seen")
    seen = fit(parts)
    for part in parts:
        unseen = fit([other for other in parts if other.name != part.name])
        print(f"{part.phase:8}{part.name:34}|{summary(part.error(seen))}  |{summary(part.error(unseen))}")


def print_artefacts(parts: list[Part], coefficients: FloatArray) -> None:
    print(f"{'batch':>49} {'new':>6} {'context':>8} {'measured ms':>12} {'fitted ms':>10} {'error %':>8}")
    for part in parts:
        error = part.error(coefficients)
        for index in np.flatnonzero(artefacts(part)):
            batch, new, context = part.rows[index]
            measured_ms, miss = part.measured_s[index] * 1e3, error[index]
            figures = f"{measured_ms:12.3f} {measured_ms * (1 + miss):10.3f} {miss * 100:8.1f}"
            print(f"{part.phase:8}{part.name:34} {batch:6.0f} {new:6.0f} {context:8.0f} {figures}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--write", action="store_true", help="write the package's coefficients")
    write = arguments.parse_args().write
    loaded = [part for path in sorted(DATA.glob("*.csv")) for part in load(path)]
    parts = sorted(loaded, key=lambda part: PHASES.index(part.phase))
    coefficients = fit(parts)
    print_errors(parts)
    clean = [part.only(~artefacts(part)) for part in parts]
    empty_figure = sum(len(part.rows) for part in parts) - sum(len(part.rows) for part in clean)
    print(f"\nwithout the {empty_figure} rows listed below")
    print_errors(clean)
    print(f"\nrows that fall by {FALL:.0%} or bend by {BEND:.1%}")
    print_artefacts(parts, coefficients)
    found = {name: float(f"{value:.6g}") for name, value in zip(TERMS, coefficients, strict=True)}
    text = json.dumps({"source": SOURCE, "coefficients": found}, indent=2)
    print(f"\n{text}")
    if write:
        TARGET.write_text(text + "\n")


if __name__ == "__main__":
    main()
