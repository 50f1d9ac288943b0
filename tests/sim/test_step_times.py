"""Step times: against the measured steps they were fitted to, and against what must hold for any roofline."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sim_trials import make_trial

from tune.results.requests import FloatArray
from tune.sim.step_times import StepTimes

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "step_times"
FILES = {
    "llama3.1-405b-nvfp4_gb200_tp2": ("llama3_1_405b_fp4", 2),
    "llama3.1-405b-nvfp4_gb200_tp4": ("llama3_1_405b_fp4", 4),
    "llama3.1-405b-nvfp4_gb200_tp8": ("llama3_1_405b_fp4", 8),
    "llama3.1-70b-nvfp4_gb200_tp2": ("llama3_1_70b_fp4", 2),
}


def predicted_s(times: StepTimes, phase: str, rows: FloatArray) -> FloatArray:
    batch, new, context = rows.T
    if phase == "decode":
        return times.decode_batch_s(batch) + times.decode_context_token_s * batch * context
    pairs = batch * new * (context + new / 2)
    return times.prefill_step_s + times.prefill_token_s * batch * new + times.prefill_pair_s * pairs


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", FILES)
def test_measured_steps_are_met(name: str, phase: str) -> None:
    model, tp = FILES[name]
    spec, _ = make_trial(f"model={model}", f"{phase}.tensor_parallel_size={tp}")
    times = StepTimes.of(spec.model, spec.hardware, getattr(spec, phase))
    with (DATA / f"{name}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == phase]
    work = np.array([[float(row[key]) for key in ("batch", "new_tokens", "context_tokens")] for row in rows])
    error = np.abs(predicted_s(times, phase, work) / [float(row["step_ms"]) / 1e3 for row in rows] - 1)
    assert len(rows) > 100
    assert error.mean() < 0.05
    assert error.max() < 0.20


def times_of(*overrides: str) -> StepTimes:
    spec, _ = make_trial(*overrides)
    return StepTimes.of(spec.model, spec.hardware, spec.decode)


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_every_figure_counts(tp: int) -> None:
    times = times_of(f"decode.tensor_parallel_size={tp}")
    assert all(value > 0 for value in vars(times).values())


def test_more_gpus_make_work_cheaper() -> None:
    narrow, wide = (times_of(f"decode.tensor_parallel_size={tp}") for tp in (2, 8))
    for name in ("prefill_token_s", "prefill_pair_s", "decode_tile_s", "decode_context_token_s"):
        assert getattr(wide, name) < getattr(narrow, name)


def test_a_smaller_model_and_more_flops_are_faster() -> None:
    base = times_of()
    small = times_of("model=llama3_1_70b_fp4")
    assert all(getattr(small, name) < value for name, value in vars(base).items())
    gb300 = times_of("hardware=gb300_nvl72")
    assert gb300.prefill_token_s < base.prefill_token_s
    assert gb300.decode_context_token_s == base.decode_context_token_s


def test_a_wider_cache_is_read_more_slowly() -> None:
    base, wide = times_of(), times_of("decode.kv_cache_config.dtype=bfloat16")
    assert wide.decode_context_token_s == pytest.approx(2 * base.decode_context_token_s)
    assert wide.prefill_pair_s == pytest.approx(2 * base.prefill_pair_s)


def test_a_decode_step_jumps_where_a_tile_begins() -> None:
    times = times_of()
    step_s = np.diff(times.decode_batch_s(np.array([255.0, 256.0, 257.0])))
    assert step_s[0] == pytest.approx(times.decode_sequence_s)
    assert step_s[1] == pytest.approx(times.decode_sequence_s + times.decode_tile_s)
