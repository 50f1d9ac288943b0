"""Refuse weights whose step times are not known in all that simulates, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.composed import composed

from tune.config import compose_overrides
from tune.engines.check import check, check_simulated
from tune.errors import ConfigurationError
from tune.sim.simulator import simulate_serving
from tune.sim.step_times import StepTimes
from tune.spec.findings import only_errors
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]

MOCKED = {"stack__name": "dynamo_v1_mocker", "stack__engine": "dynamo_mocker", "stack__system_port": 9100}


@pytest.mark.parametrize("dtype", ["fp8", "bfloat16"])
def test_the_simulator_has_one_error_for_other_weights(dtype: str, make_spec: MakeSpec) -> None:
    (finding,) = check_simulated(make_spec(model__weight_dtype=dtype))
    assert (finding.severity, finding.path) == ("error", "model.weight_dtype")
    assert finding.found.startswith(dtype)
    assert finding.expected.startswith("nvfp4 ")
    assert not check_simulated(make_spec())


def test_experts_are_not_simulated_and_run_on_real_engines(make_spec: MakeSpec, shipped: Settings) -> None:
    spec = make_spec(model__experts=256)
    assert not only_errors(check(spec))
    (finding,) = only_errors(check_simulated(spec))
    assert (finding.path, finding.found) == ("model.experts", "256, of llama3.1-405b-fp4")
    with pytest.raises(ConfigurationError, match=r"model\.experts: found 256"):
        StepTimes.of(spec.model, spec.hardware, spec.decode)
    assert "experts" not in shipped.model.model_dump(), "ids of trials with a dense model stay as they were"


@pytest.mark.parametrize(
    ("field", "value"),
    [("attention", "mla"), ("sliding_window_tokens", 128), ("attention_dtype", "bfloat16")],
)
def test_attention_of_another_kind_is_not_simulated(field: str, value: object, make_spec: MakeSpec) -> None:
    spec = make_spec(**{f"model__{field}": value})
    (finding,) = only_errors(check_simulated(spec))
    assert (finding.path, finding.found) == (f"model.{field}", f"{value}, of llama3.1-405b-fp4")
    with pytest.raises(ConfigurationError, match=f"model.{field}: found {value}"):
        StepTimes.of(spec.model, spec.hardware, spec.decode)
    assert not check_simulated(make_spec(model__attention="gqa"))


def test_layers_of_another_kind_are_not_simulated(make_spec: MakeSpec, shipped: Settings) -> None:
    all_experts = make_spec(model__linear_parameters=40 * shipped.model.linear_parameters)
    (finding,) = only_errors(check_simulated(all_experts))
    assert finding.path == "model.linear_parameters"
    assert "model.experts for a mixture of experts" in finding.expected
    assert not only_errors(check(all_experts)), "real engines read the checkpoint, not this figure"
    rounded = make_spec(model__linear_parameters=1.02 * shipped.model.linear_parameters)
    assert not check_simulated(rounded)


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"enable_attention_dp": True}, "decode.extra.enable_attention_dp"),
        ({"speculative_config": {"decoding_type": "MTP"}}, "decode.extra.speculative_config"),
        ({"enable_attention_dp": False, "speculative_config": None, "print_iter_log": True}, None),
    ],
)
def test_keys_that_change_what_a_step_is_are_not_simulated(
    extra: dict[str, object], path: str | None, make_spec: MakeSpec
) -> None:
    spec = make_spec(decode__extra=extra)
    assert not only_errors(check(spec)), "a real engine takes them"
    assert [finding.path for finding in only_errors(check_simulated(spec))] == ([path] if path else [])


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("+decode.extra.data_parallel_size=2", "decode.extra.data_parallel_size"),
        ("+decode.extra.speculative_config={method: ngram}", "decode.extra.speculative_config"),
        ("+decode.extra.data_parallel_size=1", None),
    ],
)
def test_keys_of_vllm_that_change_what_a_step_is_are_not_simulated(override: str, path: str | None) -> None:
    overrides = ["stack=dynamo_vllm", "prefill=vllm", "decode=vllm", override]
    spec = composed(*overrides).trial_spec
    assert [finding.path for finding in only_errors(check_simulated(spec))] == ([path] if path else [])


@pytest.mark.parametrize(
    ("hardware", "refused"), [("h200_dgx", True), ("h100_dgx", True), ("b200_dgx", False)]
)
def test_nvfp4_weights_need_fp4_units(hardware: str, refused: bool) -> None:
    composed = compose_overrides(
        [
            f"hardware={hardware}",
            "model=llama3_1_70b_fp4",
            "split.prefill_workers=1",
            "split.decode_workers=1",
        ]
    )
    errors = only_errors(check(composed.settings.trial_spec))
    assert [finding.path for finding in errors] == ["model.weight_dtype"] * refused
    assert all(finding.found.endswith(hardware.replace("_", "-")) for finding in errors)


def test_context_parallelism_counts_in_gpus_and_is_not_simulated(make_spec: MakeSpec) -> None:
    spec = make_spec(decode__context_parallel_size=2, split__decode_workers=2)
    assert spec.decode.gpus == 8
    assert not only_errors(check(spec))
    (finding,) = only_errors(check_simulated(spec))
    assert (finding.path, finding.found) == ("decode.context_parallel_size", "2")
    assert finding in only_errors(
        check(make_spec(decode__context_parallel_size=2, split__decode_workers=2, **MOCKED))
    )


def test_mock_engines_refuse_other_weights_and_real_ones_do_not(make_spec: MakeSpec) -> None:
    real = make_spec(model__weight_dtype="fp8")
    assert not only_errors(check(real))
    (finding,) = only_errors(check(make_spec(model__weight_dtype="fp8", **MOCKED)))
    assert finding.path == "model.weight_dtype"


def test_no_step_is_timed_with_other_weights(make_spec: MakeSpec) -> None:
    spec = make_spec(model__weight_dtype="fp8")
    calibration = composed("cluster=sim").cluster.calibration
    assert calibration is not None
    with pytest.raises(ConfigurationError, match=r"model\.weight_dtype: found fp8, expected nvfp4"):
        StepTimes.of(spec.model, spec.hardware, spec.decode)
    with pytest.raises(ConfigurationError, match=r"model\.weight_dtype: found fp8, expected nvfp4"):
        simulate_serving(spec, calibration)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "refused"),
    [
        (["cluster=sim"], True),
        (["cluster=slurm", "load.mode=capacity"], False),
        (["cluster=slurm", "+sweep=pd_split", "search=surrogate"], True),
        (["cluster=slurm"], False),
        (["cluster=slurm", "+sweep=pd_split", "search=tpe", "load.mode=fixed"], False),
    ],
)
def test_a_plan_is_refused_where_only_the_simulator_could_run_it(
    overrides: list[str], refused: bool, root: Path, tmp_path: Path
) -> None:
    where = [f"runs_dir={tmp_path}", "action=plan", "model.weight_dtype=fp8"]
    done = subprocess.run(
        [sys.executable, "-m", "tune", *overrides, *where],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if refused else 0), done.stderr
    assert ("error: model.weight_dtype" in done.stderr) == refused
