"""Test that numbers and files too large for any use end in one message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tune.config import compose_overrides
from tune.errors import ConfigurationError

ABSURD = [
    "load.target_qps=1e308",
    "load.min_duration_s=1e300",
    "load.dataset.samples=99999999999",
    "load.client_concurrency=99999999999999999",
    "load.shuffle_seed=99999999999999999999999999",
    "hardware.nodes=999999999",
    "hardware.gpus_per_node=999999999",
    "hardware.hbm_bytes=1e300",
    "model.layers=99999999999999999999999",
    "decode.max_batch_size=99999999999999999999999",
    "decode.cuda_graph_config.max_batch_size=1000000000000",
    "decode.cuda_graph_config.batch_sizes=[1,99999999999999999999999]",
    "slo.ttft_p99_s=1e300",
    "study.n_trials=99999999999999",
    "confirm.repeats=99999999999999",
]


@pytest.mark.parametrize(
    "overrides",
    [ABSURD, [f"load.target_qps={'9' * 400}"], [f"hardware.nodes={'9' * 400}"]],
    ids=["many", "rate of 400 digits", "nodes of 400 digits"],
)
def test_absurd_numbers_are_refused_by_name(overrides: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        compose_overrides(overrides)
    for override in overrides:
        path = override.partition("=")[0]
        assert re.search(rf"^ *{path}\S*: found .*; expected", str(refused.value), re.MULTILINE), path


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ("{kind: int, path: decode.max_batch_size, low: 1, high: 100000000000000000000}", "high: found 1000"),
        ("{kind: int, path: decode.max_batch_size, low: 1, high: 1000000000}", "1e.09 values .* larger step"),
        ("{kind: float, path: load.target_qps, low: 1.0, high: 1.0e+12, step: 0.1}", "1e.13 values"),
    ],
)
def test_a_dimension_without_end_is_refused(dimension: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "endless.yaml").write_text(
        f"# @package _global_\nsweep:\n  question: q\n  n_trials: 2\n  space:\n    size: {dimension}\n"
    )
    with pytest.raises(ConfigurationError, match=message):
        compose_overrides(["+sweep=endless"], [str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40)),
            "e.1. values",
        ),
        ("a: &a [*a]\n", "a value that contains itself"),
    ],
)
def test_aliases_that_repeat_without_end_are_refused(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "bomb.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"bomb\.yaml: found .*{found} once its aliases"):
        compose_overrides(["hardware=bomb"], [str(tmp_path)])


def test_an_alias_that_repeats_little_is_read(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.yaml").write_text(
        "defaults: [gb200_nvl72, _self_]\nfp8_flop_per_s: &flops 4.0e+15\nbf16_flop_per_s: *flops\n"
    )
    assert compose_overrides(["hardware=mine"], [str(tmp_path)]).settings.hardware.bf16_flop_per_s == 4e15
