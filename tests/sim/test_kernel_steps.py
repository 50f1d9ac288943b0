"""Test step times by AIConfigurator's kernels: what is asked of it, its rows, and what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import composed
from support.sim_trials import digest, make_trial, short_trial

from tune.engines.check import check_simulated
from tune.errors import ConfigurationError
from tune.sim import kernel_steps
from tune.sim.kernel_steps import check_kernels, kernel_rows, kernel_shape, with_kernel_steps
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.timed_rules import check_timed

SOURCE = "cluster.calibration.step_source=aiconfigurator"
SCALES = ("cluster.calibration.prefill_scale=1.0", "cluster.calibration.decode_scale=1.0")
DEEPSEEK = (
    "model=deepseek_r1_fp4",
    "decode.tensor_parallel_size=16",
    "decode.extra={enable_attention_dp: true, moe_expert_parallel_size: 16, "
    "speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 3}}",
    "split.prefill_workers=2",
    "split.decode_workers=4",
)
DATA = Path(__file__).parents[2] / "benchmarks" / "data" / "deepseek_r1_gb200"


@pytest.fixture(autouse=True)
def _unkept() -> None:
    """Forget the rows of other tests."""
    kernel_rows.cache_clear()


def test_shape_of_ranks_of_experts_with_drafts() -> None:
    spec, _ = make_trial(*DEEPSEEK)
    shape = kernel_shape(spec, spec.decode)
    assert shape.model == "deepseek-ai/DeepSeek-R1"
    assert (shape.gpu, shape.engine) == ("gb200", "trtllm")
    assert (shape.tensor_parallel, shape.attention_ranks, shape.expert_parallel) == (1, 16, 16)
    assert (shape.dense_format, shape.expert_format, shape.kv_format) == ("bfloat16", "nvfp4", "fp8")
    assert shape.draft_tokens == 3
    assert (shape.sequences, shape.tokens) == (spec.decode.max_sequences, spec.decode.token_budget)


def test_shape_of_a_dense_model() -> None:
    spec, _ = make_trial()
    shape = kernel_shape(spec, spec.prefill)
    assert shape.model == "meta-llama/Meta-Llama-3.1-405B"
    assert (shape.tensor_parallel, shape.attention_ranks, shape.expert_parallel) == (4, 1, 1)
    assert (shape.dense_format, shape.expert_format) == ("nvfp4", None)


UNNAMED = [
    ("hardware.name=mi300x", "hardware.name: found mi300x; expected a name that begins with one of h100"),
    ("prefill.pipeline_parallel_size=2", "pipeline and context parallelism: found more than 1"),
    ("model.weight_dtype=int8", "model: found weights in int8; expected one of nvfp4"),
    ("prefill.kv_cache_config.dtype=nvfp4", "format of the KV cache: found nvfp4; expected fp8 or bfloat16"),
]
UNMEASURED = [
    ("model.served_name=some/model", "it does not know the model. model.served_name may be one of Mini"),
    ("hardware.name=h100-x8", "AIConfigurator has no prefill steps of meta-llama/Meta-Llama-3.1-405B"),
]


@pytest.mark.parametrize(("override", "message"), UNNAMED)
def test_what_has_no_name_there_is_one_error(override: str, message: str) -> None:
    refused(override, message)


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("override", "message"), UNMEASURED)
def test_what_was_not_measured_is_one_error(override: str, message: str) -> None:
    refused(override, message)


def refused(override: str, message: str) -> None:
    """Assert that a trial has no steps of kernels, and that `message` says why."""
    spec, calibration = make_trial(override, SOURCE)
    with pytest.raises(ConfigurationError) as raised:
        with_kernel_steps(spec, calibration)
    assert message in str(raised.value)
    (finding,) = check_kernels(spec, calibration)
    assert (finding.severity, finding.path) == ("error", "cluster.calibration.step_source")
    assert message in finding.found


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_steps, "_LIBRARY", "no_such_library")
    with pytest.raises(ConfigurationError, match=r"Run: pip install 'tune\[kernels\]'"):
        with_kernel_steps(*make_trial(SOURCE))


def test_without_a_source_nothing_is_asked() -> None:
    spec, calibration = make_trial()
    assert with_kernel_steps(spec, calibration) is calibration
    assert not list(check_kernels(spec, calibration))


MODELS = [
    ("model=llama3_1_405b_fp4",),
    ("model=llama3_1_405b_fp8", "hardware=h200_dgx"),
    ("model=llama3_1_70b_fp8", "hardware=h200_dgx"),
    ("model=deepseek_r1_fp8",),
    (
        "model=gpt_oss_120b",
        *(f"{pool}.extra={{moe_expert_parallel_size: 4}}" for pool in ("prefill", "decode")),
    ),
    ("model=qwen3_235b_a22b_fp8",),
    ("model=kimi_k2_fp8",),
    DEEPSEEK,
]


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("overrides", MODELS)
def test_shipped_models_have_steps_that_grow(overrides: tuple[str, ...]) -> None:
    """A step of more sequences or tokens takes longer, but for the scatter of single kernels."""
    spec, _ = make_trial(*overrides)
    prefill = kernel_rows(kernel_shape(spec, spec.prefill), "prefill")
    decode = kernel_rows(kernel_shape(spec, spec.decode), "decode")
    alone = [row for row in prefill if row.batch == 1 and row.context_tokens == 0]
    assert alone[-1].new_tokens == spec.prefill.token_budget
    assert alone[-1].milliseconds > 2 * alone[0].milliseconds
    assert decode[-1].batch == spec.decode.max_sequences
    assert decode[-1].milliseconds > 1.3 * decode[0].milliseconds
    assert {row.new_tokens // row.batch for row in decode} == {1 + spec.decode.draft_tokens}


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_rows_are_those_of_the_published_table() -> None:
    """The table of the benchmark was written with the release that the extra allows."""
    table = {f"{phase}_steps": str(DATA / "steps.csv") for phase in ("prefill", "decode")}
    spec, calibration = make_trial(*DEEPSEEK)
    kept = Calibration.model_validate({**calibration.model_dump(), **table}).decode_steps
    assert kept is not None
    rows = {row[:3]: row.milliseconds for row in kernel_rows(kernel_shape(spec, spec.decode), "decode")}
    common = [row for row in kept if row[:3] in rows]
    assert len(common) > 20
    for row in common:
        assert rows[row[:3]] == pytest.approx(row.milliseconds, rel=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_a_trial_is_simulated_as_with_a_table_of_its_kernels() -> None:
    spec, calibration = short_trial(*DEEPSEEK, *SCALES, SOURCE, "load.target_qps=8")
    tabled = with_kernel_steps(spec, calibration).model_copy(update={"step_source": None})
    assert digest(simulate_serving(spec, calibration)) == digest(simulate_serving(spec, tabled))
    assert not check_timed(spec, calibration)


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_a_table_goes_before_the_kernels(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("phase,batch,new_tokens,context_tokens,milliseconds\ndecode,1,1,1,3\ndecode,8,8,8,5\n")
    spec, calibration = make_trial(SOURCE, f"cluster.calibration.decode_steps={path}")
    completed = with_kernel_steps(spec, calibration)
    assert completed.decode_steps == calibration.decode_steps
    assert completed.prefill_steps


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_sums_are_a_warning_and_so_are_scales_of_the_roofline() -> None:
    spec, calibration = make_trial(SOURCE)
    (warning,) = check_kernels(spec, calibration)
    assert warning.severity == "warning"
    assert "-19 to +87 %" in warning.why
    scales = [finding.path for finding in check_simulated(spec, calibration) if "scale" in finding.path]
    assert scales == ["cluster.calibration.prefill_scale", "cluster.calibration.decode_scale"]


def test_keys_that_divide_experts_are_not_called_ignored() -> None:
    spec, calibration = make_trial(*DEEPSEEK, SOURCE, *SCALES)
    ignored = [finding for finding in check_simulated(spec, calibration) if "change nothing" in finding.why]
    assert not ignored
    spec, calibration = make_trial("decode.extra={moe_expert_parallel_size: 4, moe_backend: CUTLASS}")
    (ignored_key,) = (each for each in check_simulated(spec) if "change nothing" in each.why)
    assert ignored_key.found == "extra.moe_backend"


def test_source_is_part_of_a_record_only_where_it_is_set() -> None:
    """Identities of calibrations without it stay as they are."""
    assert "step_source" not in composed().cluster.calibration.model_dump_json()
