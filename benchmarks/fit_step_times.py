"""Fit the step times of tune/sim/step_times.py to measured ones and write their coefficients.

    python benchmarks/fit_step_times.py            print errors
    python benchmarks/fit_step_times.py --write    also write tune/sim/data/step_time_coefficients.json

Non-negative least squares on the relative error, over all files together; beside it the error on each file
when the fit has not seen that file.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

import tune.sim.step_times
from tune.config import compose_overrides
from tune.results.requests import FloatArray
from tune.sim.step_times import (
    DECODE_TERMS,
    GEMM_TILE_SEQUENCES,
    PREFILL_TERMS,
    decode_terms,
    prefill_terms,
)

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "benchmarks" / "data" / "step_times"
TARGET = Path(tune.sim.step_times.__file__).parent / "data" / "step_time_coefficients.json"
SOURCE = (
    "benchmarks/fit_step_times.py over benchmarks/data/step_times: non-negative least squares on relative "
    "error. Those steps: measured kernel database of NVIDIA AIConfigurator 0.12.0 (Apache-2.0), TensorRT-LLM "
    "1.3.0rc20, GB200, NVFP4 weights, FP8 KV cache, queried 2026-11-23."
)
MODELS = {"llama3.1-405b": "llama3_1_405b_fp4", "llama3.1-70b": "llama3_1_70b_fp4"}


def load(path: Path, phase: str) -> tuple[FloatArray, FloatArray]:
    """Terms, shape (rows, terms), and measured seconds, shape (rows,), of one file and phase."""
    name, tp = path.stem.split("-nvfp4_gb200_tp")
    settings = compose_overrides(
        (f"model={MODELS[name]}", f"prefill.tensor_parallel_size={tp}", f"decode.tensor_parallel_size={tp}")
    ).settings
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == phase]
    batch, new, context, step_ms = (
        np.array([float(row[column]) for row in rows])
        for column in ("batch", "new_tokens", "context_tokens", "step_ms")
    )
    one = np.ones(len(rows))
    if phase == "prefill":
        work = np.stack([one, batch * new, batch * new * (context + new / 2)], axis=1)
        terms = prefill_terms(settings.model, settings.hardware, settings.prefill)
    else:
        work = np.stack([one, np.ceil(batch / GEMM_TILE_SEQUENCES), batch, batch * context], axis=1)
        terms = decode_terms(settings.model, settings.hardware, settings.decode)
    return work @ terms.T, step_ms / 1e3


def fit(parts: list[tuple[FloatArray, FloatArray]]) -> FloatArray:
    terms = np.concatenate([terms for terms, _ in parts])
    measured_s = np.concatenate([measured for _, measured in parts])
    return nnls(terms / measured_s[:, None], np.ones(len(measured_s)))[0]


def errors(coefficients: FloatArray, part: tuple[FloatArray, FloatArray]) -> str:
    error = np.abs(part[0] @ coefficients / part[1] - 1) * 100
    return f"{error.mean():5.1f} {np.quantile(error, 0.95):5.1f} {error.max():5.1f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--write", action="store_true", help="write the package's coefficients")
    write = arguments.parse_args().write
    paths = sorted(DATA.glob("*.csv"))
    found: dict[str, object] = {"source": SOURCE}
    print("error %, mean p95 worst                 | seen           | not seen")
    for phase, names in (("prefill", PREFILL_TERMS), ("decode", DECODE_TERMS)):
        parts = [load(path, phase) for path in paths]
        coefficients = fit(parts)
        found[phase] = {name: float(f"{c:.6g}") for name, c in zip(names, coefficients, strict=True)}
        for index, path in enumerate(paths):
            unseen = fit(parts[:index] + parts[index + 1 :])
            seen = errors(coefficients, parts[index])
            print(f"{phase:8}{path.stem:32}|{seen} |{errors(unseen, parts[index])}")
    print(json.dumps(found, indent=2))
    if write:
        TARGET.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
