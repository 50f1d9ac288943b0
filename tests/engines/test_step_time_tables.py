from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator
from support.composed import composed

from tune.core.arrays import FloatArray
from tune.deploy.step_timing import time_steps
from tune.engines.dynamo_mocker.step_time_tables import mean_context_tokens, step_times
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.sim.worker_models import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
Table = dict[str, FloatArray]

SETTINGS = composed("cluster=local", "stack=dynamo_v1_mocker")
SPEC = SETTINGS.trial_spec


def calibration() -> Calibration:
    assert SETTINGS.cluster.calibration is not None
    return SETTINGS.cluster.calibration


def files(spec: TrialSpec, calibration: Calibration) -> Mapping[str, bytes]:
    return step_times(spec, time_steps(spec, calibration), kv_capacity_tokens(spec, "decode"))


def tables(spec: TrialSpec, calibration: Calibration) -> dict[str, Table]:
    return {name: dict(np.load(io.BytesIO(file))) for name, file in files(spec, calibration).items()}


TABLES = tables(SPEC, calibration())
DECODE = TABLES["decode_step_times.npz"]
_, STEPS = decode_worker(SPEC, calibration(), window_s=0.0)
BATCH_S, CONTEXT_TOKEN_S = STEPS.batch_s[:, 0], STEPS.token_s[0, 0]


def decode_step_ms(sequences: int, context_tokens: int) -> float:
    """Read the table as a mock engine does: by the sum of the contexts and their whole mean."""
    axes = DECODE["decode_active_kv_tokens"], DECODE["decode_context_length"]
    grid = RegularGridInterpolator(axes, DECODE["decode_itl"], bounds_error=False, fill_value=None)
    return float(grid((sequences * context_tokens, context_tokens)))


@given(sequences=st.integers(1, 400), context_tokens=st.integers(100, 20_000))
def test_decode_step_lies_between_those_of_neighbouring_batches(sequences: int, context_tokens: int) -> None:
    """Allow for the table, which blurs the batch by a few per cent."""
    if sequences * context_tokens > kv_capacity_tokens(SPEC, "decode"):
        return
    near = BATCH_S[int(sequences * 0.96) : int(np.ceil(sequences * 1.04)) + 1]
    read_s = CONTEXT_TOKEN_S * sequences * context_tokens
    assert near.min() + read_s <= decode_step_ms(sequences, context_tokens) * 1e-3 * 1.0001
    assert near.max() + read_s >= decode_step_ms(sequences, context_tokens) * 1e-3 * 0.9999


@pytest.mark.parametrize("sequences", [40, 112, 140, 170, 208])
def test_decode_step_is_exact_away_from_graph_sizes(sequences: int) -> None:
    wanted_s = BATCH_S[sequences] + CONTEXT_TOKEN_S * sequences * 8_000
    assert decode_step_ms(sequences, 8_000) == pytest.approx(wanted_s * 1e3, rel=1e-3)


def test_chunks_of_the_whole_dataset_take_the_simulated_time() -> None:
    """Sum the steps of all prompts, each in chunks of the token budget."""
    from tune.workload.lengths import draw_lengths

    table, ours = TABLES["prefill_step_times.npz"], prefill_worker(SPEC, calibration(), window_s=0.0)
    prompts, _ = draw_lengths(SPEC.load.dataset, SPEC.load.dataset.samples, False, 0)
    table_s = ours_s = 0.0
    for prompt in prompts.tolist():
        starts = np.arange(0, prompt, ours.token_budget)
        new = np.minimum(ours.token_budget, prompt - starts)
        table_s += np.interp(new, table["prefill_isl"], table["prefill_ttft_ms"]).sum() * 1e-3
        pairs = new * (starts + new / 2)
        ours_s += (ours.step_s + ours.token_s * new + ours.pair_s * pairs).sum()
    assert table_s == pytest.approx(ours_s, rel=1e-9)


def test_mean_context_of_equal_prompts_is_half_a_prompt(make_spec: MakeSpec) -> None:
    changes = {"mean_tokens": 8000.0, "min_tokens": 7999, "max_tokens": 8001, "sd_tokens": 0.5}
    spec = make_spec(**{f"load__dataset__inputs__{key}": value for key, value in changes.items()})
    assert mean_context_tokens(spec.load) == pytest.approx(4000, rel=1e-3)


def test_arrays_have_the_shapes_that_dynamo_reads() -> None:
    for table in TABLES.values():
        assert {array.dtype for array in table.values()} == {np.dtype(np.float64)}
        sums, means = table["decode_active_kv_tokens"], table["decode_context_length"]
        assert table["decode_itl"].shape == (len(sums), len(means))
        for axis in (sums, means, table["prefill_isl"]):
            assert (np.diff(axis) > 0).all()
        assert (table["decode_itl"] > 1.0).all()


@pytest.mark.parametrize(
    ("name", "changed"), [("decode_scale", "decode_itl"), ("prefill_scale", "prefill_ttft_ms")]
)
def test_calibration_scales_the_tables(name: str, changed: str) -> None:
    scaled: dict[str, Any] = calibration().model_dump() | {name: 2 * getattr(calibration(), name)}
    role = name.partition("_")[0]
    before = TABLES[f"{role}_step_times.npz"][changed]
    after = tables(SPEC, Calibration.model_validate(scaled))[f"{role}_step_times.npz"][changed]
    assert (after > 1.5 * before).all()


def test_same_trial_gives_the_same_bytes() -> None:
    assert files(SPEC, calibration()) == files(SPEC, calibration())
