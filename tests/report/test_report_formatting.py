"""Test numbers, dimensions and configurations as text."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_study import outcome, study, synthetic_trial

from tune.report import formatting
from tune.spec.metrics import TPOT
from tune.spec.space import ChoiceDimension, FloatDimension, IntDimension, OrderedDimension


@given(st.floats(min_value=1e-6, max_value=1e9), st.integers(min_value=2, max_value=6))
def test_figure_keeps_significant_digits(value: float, significant: int) -> None:
    text = formatting.format_figure(value, significant)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.51 * 10 ** (1 - significant))


@pytest.mark.parametrize(
    ("value", "significant", "text"),
    [
        (4.2158, 3, "4.22"),
        (9.9996, 3, "10.0"),
        (137.466, 4, "137.5"),
        (9897.52, 5, "9,897.5"),
        (10079.6, 4, "10,080"),
        (0.0, 3, "0"),
        (None, 3, "–"),
        (-0.01234, 2, "-0.012"),
    ],
)
def test_figure_has_separators_and_trailing_zeros(value: float | None, significant: int, text: str) -> None:
    assert formatting.format_figure(value, significant) == text


@pytest.mark.parametrize(
    ("value_s", "text"), [(0.05902, "59.0 ms"), (0.2, "200 ms"), (None, "–"), (0.0, "0 ms")]
)
def test_latency_is_formatted_in_its_shown_unit(value_s: float | None, text: str) -> None:
    assert formatting.format_latency(TPOT, value_s) == text


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
def test_shell_reads_back_the_overrides_of_a_command(texts: list[str]) -> None:
    assert shlex.split(formatting.command(texts)) == ["python", "-m", "tune", *texts]


@pytest.mark.parametrize(
    ("dimension", "value_range", "unit"),
    [
        (
            IntDimension(kind="int", path="split.prefill_workers", low=1, high=17),
            "1 to 17 in steps of 1",
            "workers",
        ),
        (FloatDimension(kind="float", path="load.target_qps", low=6.0, high=26.0), "6 to 26", "queries/s"),
        (
            FloatDimension(kind="float", path="load.target_qps", low=6.0, high=26.0, step=0.5),
            "6 to 26 in steps of 0.5",
            "queries/s",
        ),
        (FloatDimension(kind="float", path="x.y", low=0.1, high=10.0, log=True), "0.1 to 10, log scale", ""),
        (OrderedDimension(kind="ordered", path="prefill.max_num_tokens", values=(1, 2)), "1, 2", "tokens"),
        (
            IntDimension(kind="int", path="decode.pipeline_parallel_size", low=1, high=2),
            "1 to 2 in steps of 1",
            "stages",
        ),
        (ChoiceDimension(kind="choice", path="stack.name", values=("a", True)), "a, True", ""),
    ],
)
def test_dimension_has_range_and_unit(
    dimension: IntDimension | FloatDimension | OrderedDimension | ChoiceDimension, value_range: str, unit: str
) -> None:
    assert (formatting.value_range(dimension), formatting.unit(dimension, "trtllm")) == (value_range, unit)


def test_configuration_is_split_and_searched_settings() -> None:
    text = formatting.describe_configuration(synthetic_trial(1), study().space)
    assert text == "14P4D, prefill max_num_tokens 4096, decode CUDA graphs powers_of_two"


def test_settings_of_pools_that_a_trial_lacks_are_not_named() -> None:
    space = {
        f"{pool}_max_num_tokens": OrderedDimension(
            kind="ordered", path=f"{pool}.max_num_tokens", values=(1024, 4096)
        )
        for pool in ("prefill", "aggregated")
    }
    params = {"prefill_max_num_tokens": 4096, "aggregated_max_num_tokens": 1024}
    texts = []
    for split in ("18A", "14P4D"):
        trial = outcome(1, "failed", None, provenance={"params": params, "split": split})
        texts.append(formatting.describe_configuration(trial, space))
    assert texts == ["18A, aggregated max_num_tokens 1024", "14P4D, prefill max_num_tokens 4096"]


def test_configuration_without_split_names_its_workers() -> None:
    trial = outcome(1, "failed", None, provenance={"params": {"prefill_workers": 3}})
    assert formatting.describe_configuration(trial, study().space) == "prefill_workers 3"


def test_configuration_without_record_is_its_number() -> None:
    assert formatting.describe_configuration(outcome(5, "failed", None, provenance={}), {}) == "trial 5"
