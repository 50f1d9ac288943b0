"""Check sweeps whole: dead values against a full enumeration, wrong paths and types, the shipped sweeps."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.composed import composed

from tune.config import shipped_options
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.bind import bind_point
from tune.spec.findings import Finding, only_errors
from tune.spec.space import Sweep
from tune.study import sweep_check
from tune.study.sweep_check import check_sweep

BASE = composed().trial_spec

VALUES: dict[str, list[Any]] = {
    "prefill.max_num_tokens": [16, 31, 2048, 4096],
    "decode.tensor_parallel_size": [2, 3, 4, 8],
    "split.prefill_workers": [4, 14, 18],
    "decode.scheduler_config": [None],
    "prefill.enable_chunked_prefill": [True, None],
}


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check fewer points, which is quicker."""
    monkeypatch.setattr(sweep_check, "MAX_POINTS", 300)


def sweep_of(space: dict[str, dict[str, Any]], *, fill_decode: bool = False) -> Sweep:
    return Sweep.model_validate({"question": "?", "n_trials": 1, "fill_decode": fill_decode, "space": space})


def choice(path: str, *values: Any) -> dict[str, Any]:
    return {"kind": "choice", "path": path, "values": values}


def on(findings: tuple[Finding, ...], path: str) -> Finding:
    (found,) = [finding for finding in findings if finding.path == path]
    return found


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(sorted(VALUES)), st.integers(1, 4), min_size=1, max_size=3), st.booleans()
)
@hypothesis_settings(max_examples=15, deadline=None)
def test_dead_values_are_those_of_a_full_enumeration(lengths: dict[str, int], sampled: bool) -> None:
    axes = {path: VALUES[path][:length] for path, length in lengths.items()}
    sweep = sweep_of({path: choice(path, *values) for path, values in axes.items()}, fill_decode=True)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    alive = [point for point in points if not only_errors(check(bind_point(BASE, sweep, point)))]
    with pytest.MonkeyPatch.context() as patch:
        if sampled and len(points) > 8:
            patch.setattr(sweep_check, "MAX_POINTS", len(points) - 1)
        findings = check_sweep(BASE, sweep)
    if not alive:
        assert {finding.severity for finding in findings} == {"error"}
        return
    assert sampled or bool(findings) == (len(alive) < len(points))
    for path, values in axes.items():
        living = [value for value in values if any(point[path] == value for point in alive)]
        named = [finding for finding in findings if finding.path == f"sweep.space.{path}"]
        assert len(named) == (len(living) < len(values))
        for finding in named:
            assert f"{len(values) - len(living)} of {len(values)} values" in finding.found


def test_values_that_never_run_are_named_with_what_to_write_instead() -> None:
    space = {
        "chunk": {"kind": "ordered", "path": "prefill.max_num_tokens", "values": (16, 31, 2048, 4096)},
        "workers": {"kind": "int", "path": "split.prefill_workers", "low": 0, "high": 14},
        "tp": {"kind": "int", "path": "decode.tensor_parallel_size", "low": 2, "high": 4},
    }
    findings = check_sweep(BASE, sweep_of(space))
    share = on(findings, "sweep.space")
    assert share.found.startswith("68.9% of all 180 points break a rule")
    assert (
        "prefill.max_num_tokens in 50.0% (always with chunk 16, 31), such as 16; expected at least"
        in share.why
    )
    assert on(findings, "sweep.space.chunk").expected == "'sweep.space.chunk.values=[2048,4096]'"
    assert on(findings, "sweep.space.workers").expected == "sweep.space.workers.low=1"
    line = "tp: {kind: ordered, path: decode.tensor_parallel_size, values: [2, 4]}"
    assert on(findings, "sweep.space.tp").expected == line


@pytest.mark.slow
@pytest.mark.usefixtures("small_sample")
def test_the_override_that_is_named_composes_and_leaves_no_dead_value() -> None:
    words = ["+sweep=batching", "sweep.space.prefill_max_num_tokens.values=[16,2048,4096]"]
    settings = composed(*words)
    assert settings.sweep is not None
    finding = on(check_sweep(settings.trial_spec, settings.sweep), "sweep.space.prefill_max_num_tokens")
    mended = composed(*words, *shlex.split(finding.expected))
    assert mended.sweep is not None
    assert check_sweep(mended.trial_spec, mended.sweep) == ()


def test_a_dimension_whose_values_all_break_a_rule_is_an_error() -> None:
    space = {"chunk": choice("prefill.max_num_tokens", 16, 31), "rate": choice("load.target_qps", 9.0, 12.0)}
    (finding,) = check_sweep(BASE, sweep_of(space))
    assert (finding.severity, finding.path) == ("error", "sweep.space.chunk")
    assert finding.expected == "at least a KV block, 32 tokens"


def test_every_wrong_path_and_value_is_named_at_once() -> None:
    space = {
        "chunk": choice("prefill.max_num_token", 2048),
        "tp": choice("decode.tensor_parallel_size", 4, "8", 2.5),
        "rate": {"kind": "float", "path": "load.target_qps", "low": -1.0, "high": 9.0, "step": 10.0},
    }
    with pytest.raises(ConfigurationError) as caught:
        check_sweep(BASE, sweep_of(space))
    text = str(caught.value)
    assert "sweep.space.chunk.path: found 'prefill.max_num_token'" in text
    assert "did you mean prefill.max_num_tokens?" in text
    assert 'sweep.space.tp: found "8" for decode.tensor_parallel_size; expected a valid integer.' in text
    assert "sweep.space.tp: found 2.5 for decode.tensor_parallel_size; expected a valid integer." in text
    assert "sweep.space.rate: found -1.0 for load.target_qps; expected greater than 0." in text


@pytest.mark.slow
@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("name", shipped_options("../sweeps"))
def test_no_value_of_a_shipped_sweep_is_dead(name: str) -> None:
    settings = composed(f"+sweep={name}")
    assert settings.sweep is not None
    findings = check_sweep(settings.trial_spec, settings.sweep)
    assert {finding.path for finding in findings} <= {"sweep.space"}
