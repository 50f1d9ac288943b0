"""Test bounds, priors and names of parameters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.calibrate.parameters import (
    Bounds,
    Parameter,
    bounds_of,
    find_parameters,
    with_dataset_values,
    with_values,
)
from tune.errors import ConfigurationError
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings

LOG = Parameter("prefill_scale", 0.9, Bounds(0.5, 2.0, 0.15, relative=True))
LINEAR = Parameter("ttft_overhead_s", 0.1, Bounds(0.0, 1.0, 0.1, relative=False))


@pytest.mark.parametrize("parameter", [LOG, LINEAR])
@given(share=st.floats(0, 1))
def test_u_and_value_are_inverse_within_the_bounds(parameter: Parameter, share: float) -> None:
    bounds = parameter.bounds
    value = bounds.low + share * (bounds.high - bounds.low)
    assert parameter.value(parameter.u(value)) == pytest.approx(value, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("parameter", [LOG, LINEAR])
@given(u=st.floats(-50, 50))
def test_no_u_leaves_the_bounds(parameter: Parameter, u: float) -> None:
    assert parameter.bounds.low <= parameter.value(u) <= parameter.bounds.high


def test_u_counts_prior_widths() -> None:
    assert LOG.value(0) == 0.9
    assert LOG.value(2) == pytest.approx(0.9 * math.exp(0.3))
    assert LINEAR.value(2) == pytest.approx(0.3)


def test_every_shipped_number_of_a_calibration_can_be_fitted(shipped: Settings) -> None:
    calibration = shipped.cluster.calibration
    assert calibration is not None
    numbers = [name for name, field in Calibration.model_fields.items() if field.annotation is float]
    fitted = [name for name in numbers if name != "bring_up_s"]
    result = find_parameters(fitted, calibration, shipped.load.dataset)
    assert [parameter.start for parameter in result] == [getattr(calibration, name) for name in fitted]
    assert {parameter.override for parameter in result} == {f"cluster.calibration.{name}" for name in fitted}


def test_unknown_parameter_has_no_bounds() -> None:
    assert bounds_of("colour", 1.0) is None


def test_values_reach_calibration_and_dataset(shipped: Settings) -> None:
    assert shipped.cluster.calibration is not None
    values = {"prefill_scale": 1.25, "load.dataset.inputs.sd_tokens": 4000.0}
    assert with_values(shipped.cluster.calibration, values).prefill_scale == 1.25
    dataset = with_dataset_values(shipped.load.dataset, values)
    assert dataset.inputs.sd_tokens == 4000.0
    assert dataset.outputs == shipped.load.dataset.outputs


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "calibrate.parameters is empty"),
        (["prefil_scale"], "Did you mean prefill_scale?"),
        (["load.dataset.inputs.sd_token"], "Did you mean load.dataset.inputs.sd_tokens?"),
        (["bring_up_s"], "'bring_up_s', which cannot be fitted"),
        (["load.dataset.inputs.min_tokens"], "cannot be fitted"),
        (["decode_scale", "decode_scale"], "decode_scale 2 times"),
    ],
)
def test_wrong_names_are_refused(shipped: Settings, names: list[str], message: str) -> None:
    assert shipped.cluster.calibration is not None
    with pytest.raises(ConfigurationError, match=r"calibrate\.parameters") as error:
        find_parameters(names, shipped.cluster.calibration, shipped.load.dataset)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("prefill_scale", 7.0, "within 0.5..2"), ("ttft_overhead_s", 30.0, "within 0..1")],
)
def test_start_outside_its_bounds_is_refused(
    shipped: Settings, name: str, value: float, message: str
) -> None:
    assert shipped.cluster.calibration is not None
    start = with_values(shipped.cluster.calibration, {name: value})
    with pytest.raises(ConfigurationError, match=message):
        find_parameters([name], start, shipped.load.dataset)


def test_length_without_spread_cannot_be_scaled(shipped: Settings) -> None:
    assert shipped.cluster.calibration is not None
    fixed = with_dataset_values(shipped.load.dataset, {"load.dataset.inputs.sd_tokens": 0.0})
    with pytest.raises(ConfigurationError, match="a value above 0"):
        find_parameters(["load.dataset.inputs.sd_tokens"], shipped.cluster.calibration, fixed)
