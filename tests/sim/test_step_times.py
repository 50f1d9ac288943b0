"""Test step times against the measured steps and against the properties of a roofline."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sim_trials import make_trial

import tune.sim.step_times
from tune.core.arrays import FloatArray
from tune.sim.step_times import TERMS, StepTimes, step_terms
from tune.spec.memory import kv_bytes_per_token

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "step_times"
COEFFICIENTS = Path(tune.sim.step_times.__file__).parent / "data" / "step_time_coefficients.json"
FILES = {
    "llama3.1-405b-nvfp4_gb200_tp2": ("llama3_1_405b_fp4", 2),
    "llama3.1-405b-nvfp4_gb200_tp4": ("llama3_1_405b_fp4", 4),
    "llama3.1-405b-nvfp4_gb200_tp8": ("llama3_1_405b_fp4", 8),
    "llama3.1-70b-nvfp4_gb200_tp2": ("llama3_1_70b_fp4", 2),
}
MODELS = st.sampled_from(["llama3_1_405b_fp4", "llama3_1_70b_fp4"])
HARDWARE = st.sampled_from(["gb200_nvl72", "gb300_nvl72", "b200_dgx"])
TP = st.sampled_from([1, 2, 4, 8, 16])
LONGEST = 131_072
SHAPES = st.tuples(MODELS, HARDWARE, TP)
BATCHES, CONTEXTS = st.integers(1, 1024), st.integers(1, LONGEST)


def times_of(*overrides: str) -> StepTimes:
    spec, _ = make_trial(*overrides)
    return StepTimes.of(spec.model, spec.hardware, spec.decode)


def shape(model: str, hardware: str, tp: int) -> StepTimes:
    return times_of(f"model={model}", f"hardware={hardware}", f"decode.tensor_parallel_size={tp}")


def prefill_s(times: StepTimes, batch: float, new: float, context: float) -> float:
    pairs = batch * new * (context + new / 2)
    return times.prefill_step_s + times.prefill_token_s * batch * new + times.prefill_pair_s * pairs


def decode_s(times: StepTimes, batch: float, context: float) -> float:
    free_s = times.decode_batch_s(np.array([batch]))[0]
    return float(free_s + times.decode_context_token_s * batch * context)


def predicted_s(times: StepTimes, phase: str, row: FloatArray) -> float:
    return decode_s(times, row[0], row[2]) if phase == "decode" else prefill_s(times, *row)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("name", FILES)
def test_predictions_match_measured_steps(name: str, phase: str) -> None:
    times = shape(FILES[name][0], "gb200_nvl72", FILES[name][1])
    with (DATA / f"{name}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == phase]
    work = np.array([[float(row[key]) for key in ("batch", "new_tokens", "context_tokens")] for row in rows])
    measured_s = np.array([float(row["step_ms"]) / 1e3 for row in rows])
    error = np.abs(np.array([predicted_s(times, phase, row) for row in work]) / measured_s - 1)
    assert len(rows) > 100
    assert error.mean() < 0.06
    assert error.max() < 0.16


def test_no_coefficient_beats_the_data_sheet() -> None:
    fitted = json.loads(COEFFICIENTS.read_text())["coefficients"]
    assert set(fitted) == set(TERMS)
    at_least_roofline = {"weights", "gemm", "activations", "all_reduce", "attention", "kv"}
    assert {name for name, value in fitted.items() if value >= 1} == at_least_roofline
    assert min(fitted.values()) > 0


@given(MODELS, HARDWARE, TP)
def test_every_step_time_is_positive(model: str, hardware: str, tp: int) -> None:
    assert all(value > 0 for value in vars(shape(model, hardware, tp)).values())


@given(SHAPES, BATCHES, CONTEXTS, st.integers(1, 1024))
def test_more_work_takes_longer(chosen: tuple[str, str, int], batch: int, context: int, more: int) -> None:
    times = shape(*chosen)
    assert decode_s(times, batch + more, context) > decode_s(times, batch, context)
    assert decode_s(times, batch, context + more) > decode_s(times, batch, context)
    new = min(context, 16_384)
    step_s = prefill_s(times, batch, new, context)
    assert prefill_s(times, batch + more, new, context) > step_s
    assert prefill_s(times, batch, new + more, context) > step_s
    assert prefill_s(times, batch, new, context + more) > step_s


@given(MODELS, HARDWARE, TP, BATCHES, CONTEXTS)
def test_no_step_is_faster_than_the_data_sheet(
    model: str, hardware: str, tp: int, batch: int, context: int
) -> None:
    """A decode step reads weights and cache; a prefill step computes every parameter for every token."""
    spec, _ = make_trial(f"model={model}", f"hardware={hardware}", f"decode.tensor_parallel_size={tp}")
    times = StepTimes.of(spec.model, spec.hardware, spec.decode)
    read = spec.model.checkpoint_bytes + batch * context * kv_bytes_per_token(spec.model, spec.decode)
    assert decode_s(times, batch, context) > read / tp / spec.hardware.hbm_bytes_per_s
    flop = 2 * spec.model.linear_parameters * 16_384
    share = flop / tp / spec.hardware.fp4_flop_per_s / prefill_s(times, 1, 16_384, 0)
    assert share < 0.6


@given(HARDWARE, BATCHES, CONTEXTS, st.sampled_from([1, 2, 4]))
def test_twice_the_gpus_never_slow_a_405b_step(hardware: str, batch: int, context: int, tp: int) -> None:
    narrow, wide = (shape("llama3_1_405b_fp4", hardware, size) for size in (tp, 2 * tp))
    assert decode_s(wide, batch, context) < decode_s(narrow, batch, context)
    assert 2 * decode_s(wide, batch, context) > decode_s(narrow, batch, context)
    new = min(context, 16_384)
    assert prefill_s(wide, 1, new, context) < prefill_s(narrow, 1, new, context)


@given(MODELS, TP, BATCHES, CONTEXTS)
def test_faster_hardware_is_faster(model: str, tp: int, batch: int, context: int) -> None:
    b200, gb200, gb300 = (
        decode_s(shape(model, hardware, tp), batch, context)
        for hardware in ("b200_dgx", "gb200_nvl72", "gb300_nvl72")
    )
    assert b200 > gb200 > gb300
    assert gb300 > gb200 / 1.5


def test_one_gpu_reduces_nothing() -> None:
    spec, _ = make_trial("decode.tensor_parallel_size=1")
    terms = dict(zip(TERMS, step_terms(spec.model, spec.hardware, spec.decode), strict=True))
    assert not terms["all_reduce"].any()
    assert not terms["all_reduces"].any()


def test_beyond_the_kv_heads_the_cache_is_replicated() -> None:
    eight, sixteen = (times_of(f"decode.tensor_parallel_size={tp}") for tp in (8, 16))
    assert sixteen.decode_context_token_s == pytest.approx(eight.decode_context_token_s)
    assert sixteen.prefill_pair_s == pytest.approx(eight.prefill_pair_s / 2)


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
