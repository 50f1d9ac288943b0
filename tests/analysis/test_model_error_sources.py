"""Test the error of the simulator's model, by what a trial has in common with the calibrated run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.composed import composed
from support.request_logs import spec

from tune.analysis.model_error_sources import FITTED_SCALES, estimate_model_error
from tune.records.model_error import ErrorSource, ModelError
from tune.records.outcome import BottleneckKind
from tune.spec.cluster import Calibration

CALIBRATION = composed().cluster.calibration
assert CALIBRATION


def error(*overrides: str, kind: BottleneckKind | None = "prefill", calibration: Calibration = CALIBRATION):
    return estimate_model_error(spec(*overrides), calibration, kind)


def names(found: ModelError) -> set[str]:
    return {source.name for source in found.sources}


def test_the_fitted_scales_are_the_shipped_ones() -> None:
    assert {"prefill": CALIBRATION.prefill_scale, "decode": CALIBRATION.decode_scale} == FITTED_SCALES


def test_the_reference_configuration_has_the_error_of_its_scale_alone() -> None:
    assert names(error()) == {"prefill scale"}
    assert error().sd_frac == pytest.approx(0.031)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("prefill.tensor_parallel_size=2", "split.prefill_workers=28"), "prefill steps at TP2"),
        (("prefill.max_num_tokens=8192",), "prefill chunks of 8192 tokens"),
        (("hardware=gb300_nvl72",), "prefill on gb300-nvl72"),
        (("model=llama3_1_70b_fp4",), "prefill steps of llama3.1-70b-fp4"),
        (("load.dataset.inputs.mean_tokens=4000",), "prefill steps of this workload"),
    ],
)
def test_every_difference_from_the_calibrated_run_adds_to_the_error(overrides, name: str) -> None:
    found = error(*overrides)
    assert name in names(found)
    assert found.sd_frac > error().sd_frac


def test_only_the_pool_that_limits_counts() -> None:
    words = ("decode.tensor_parallel_size=8", "split.decode_workers=2")
    assert names(error(*words)) == names(error())
    assert "decode steps at TP8" in names(error(*words, kind="decode_step_time"))
    assert error(kind=None) == max(error(), error(kind="decode_kv"), key=lambda found: found.sd_frac)


def test_a_calibration_of_ones_own_stands_for_its_hardware_and_workload() -> None:
    own = CALIBRATION.model_copy(update={"prefill_scale": 0.8})
    assert names(error("hardware=gb300_nvl72", calibration=own)) == {"prefill scale"}


def test_two_splits_that_prefill_limits_share_their_whole_error() -> None:
    other = error("split.prefill_workers=13", "split.decode_workers=5")
    assert error().difference_sd_frac(other) == 0.0
    tp2 = error("prefill.tensor_parallel_size=2", "split.prefill_workers=28")
    assert error().difference_sd_frac(tp2) == pytest.approx(0.036 * math.sqrt(math.pi / 2))


sources = st.lists(
    st.builds(ErrorSource, name=st.sampled_from("abcde"), sd_frac=st.floats(0, 0.3), basis=st.just("")),
    max_size=5,
    unique_by=lambda source: source.name,
).map(lambda drawn: ModelError(sources=tuple(drawn)))


@given(sources, sources)
def test_a_difference_is_symmetric_and_at_most_the_sum_of_both(a: ModelError, b: ModelError) -> None:
    assert a.difference_sd_frac(a) == 0.0
    assert a.difference_sd_frac(b) == pytest.approx(b.difference_sd_frac(a))
    assert a.difference_sd_frac(b) <= math.hypot(a.sd_frac, b.sd_frac) + 1e-12
