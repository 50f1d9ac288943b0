"""Pass any key at any depth of an engine's YAML, and name those that the engine would refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.composed import composed

from tune.engines.check import check
from tune.engines.trtllm.gpu_memory import transfer_buffer_bytes_per_gpu, trtllm_kv_capacity_tokens
from tune.engines.trtllm.trtllm_engine import TrtLlmEngine
from tune.engines.trtllm.trtllm_groups import derived_graph_sizes, flat_graph_sizes
from tune.engines.trtllm.yaml_reading import comparable_keys, settings_of_keys
from tune.engines.trtllm.yaml_text import engine_yaml
from tune.errors import ConfigurationError
from tune.spec.findings import Finding
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import place_workers
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
V1 = {"stack__name": "dynamo_v1", "stack__engine_yaml": "nested"}
GROUPS = ("kv_cache_config", "cuda_graph_config", "cache_transceiver_config", "scheduler_config")

DEFAULT = composed("stack=dynamo_v1").trial_spec

keys = st.text(alphabet="abcxyz_", min_size=4, max_size=8)
leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text(alphabet="a: #'{}[]é0", max_size=5)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2), max_leaves=4
)


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(GROUPS), st.dictionaries(keys, values, max_size=3)))
def test_any_key_of_a_group_is_written_there_and_part_of_the_trial(groups: dict[str, dict[str, Any]]) -> None:
    plain = DEFAULT.decode.model_dump(mode="json")
    plain["scheduler_config"] = {}
    before = TrtLlmEngine.model_validate_json(json.dumps(plain))
    for group, added in groups.items():
        plain[group] = {**plain[group], **added}
    engine = TrtLlmEngine.model_validate_json(json.dumps(plain))
    assert TrtLlmEngine.model_validate_json(engine.model_dump_json()) == engine
    assert (engine == before) == (not any(groups.values()))
    written, base = (yaml.safe_load(engine_yaml(one, "nested")) for one in (engine, before))
    for group, added in groups.items():
        base[group] |= added
    assert written == base
    assert set(engine.passed_through) == {
        f"{group}.{key}" for group, added in groups.items() for key in added
    }


def test_absent_keys_change_neither_the_trial_nor_the_yaml(make_spec: MakeSpec) -> None:
    named = make_spec(
        decode__context_parallel_size=None,
        decode__kv_cache_config__tokens_per_block=None,
        decode__cuda_graph_config__max_batch_size=None,
        decode__cache_transceiver_config__transceiver_runtime=None,
        stack__engine_schema="any.json",
    )
    assert named.trial_id == make_spec().trial_id
    assert "null" not in engine_yaml(named.decode, "nested")


@pytest.mark.parametrize(
    ("largest", "padding", "sizes"),
    [
        (1, True, [1]),
        (20, True, [1, 2, 4, 8, 16, 20]),
        (130, True, [1, 2, 4, *range(8, 129, 8), 130]),
        (256, True, [1, 2, 4, *range(8, 129, 8), 192, 256]),
        (48, False, [*range(1, 33), 48]),
        (512, False, [*range(1, 33), 64, 128, 256, 512]),
        (600, False, [*range(1, 33), 64, 128, 256, 512, 600]),
    ],
)
def test_graph_sizes_are_derived_as_the_engine_does(largest: int, padding: bool, sizes: list[int]) -> None:
    assert list(derived_graph_sizes(largest, padding)) == sizes


@pytest.mark.parametrize(
    ("largest", "padding", "sizes"),
    [
        (1, False, [1]),
        (20, True, [1, 2, 4, 8, 16, 20]),
        (48, False, [*range(1, 33), 48]),
        (256, True, [1, 2, 4, *range(8, 129, 8), 256]),
        (512, True, [1, 2, 4, *range(8, 129, 8), 256, 512]),
        (600, False, [*range(1, 33), 64, 128, 256, 600]),
        (1024, True, [1, 2, 4, *range(8, 129, 8), 256, 512, 1024]),
    ],
)
def test_the_flat_engine_derives_other_sizes(largest: int, padding: bool, sizes: list[int]) -> None:
    assert list(flat_graph_sizes(largest, padding)) == sizes
    flat = {
        "use_cuda_graph": True,
        "cuda_graph_max_batch_size": largest,
        "cuda_graph_padding_enabled": padding,
    }
    read = settings_of_keys("decode", flat, context_tokens=4096)
    assert read["cuda_graph_config"] == {"enable_padding": padding, "batch_sizes": sizes}
    written = yaml.safe_load(engine_yaml(TrtLlmEngine.model_validate_json(json.dumps(read)), "flat"))
    assert written["cuda_graph_batch_sizes"] == sizes
    assert "cuda_graph_max_batch_size" not in written, "the engine refuses both"
    assert comparable_keys(flat).items() <= comparable_keys(written).items()


def test_derived_sizes_reach_the_flat_engine_alone_as_a_list(
    make_spec: MakeSpec,
) -> None:
    graphs = {"max_batch_size": 96, "enable_padding": True}
    decode = make_spec(decode__cuda_graph_config=graphs).decode
    assert decode.graph_batch_sizes[-2:] == (88, 96)
    assert yaml.safe_load(engine_yaml(decode, "nested"))["cuda_graph_config"] == graphs
    flat = yaml.safe_load(engine_yaml(decode, "flat"))
    assert flat["cuda_graph_batch_sizes"] == list(decode.graph_batch_sizes)
    assert "cuda_graph_max_batch_size" not in flat
    assert make_spec(decode__cuda_graph_config={}).decode.graph_batch_sizes[-1] == 128
    listed = decode.with_graph_sizes((1, 2)).cuda_graph_config
    assert (listed.batch_sizes, listed.max_batch_size) == ((1, 2), None)


@given(st.sampled_from([16, 32, 64, 128, 256]))
def test_the_block_size_reaches_memory(tokens: int) -> None:
    plain = DEFAULT.model_dump(mode="json")
    plain["decode"]["kv_cache_config"]["tokens_per_block"] = tokens
    spec = TrialSpec.model_validate_json(json.dumps(plain))
    capacity = trtllm_kv_capacity_tokens(spec.model, spec.hardware, spec.decode)
    assert capacity % tokens == 0
    assert (
        0
        <= trtllm_kv_capacity_tokens(spec.model, spec.hardware, DEFAULT.decode) - capacity + 31
        <= tokens + 31
    )


def test_an_nvfp4_cache_takes_nine_sixteenths_of_an_fp8_one(make_spec: MakeSpec) -> None:
    spec = make_spec(decode__kv_cache_config__dtype="nvfp4")
    assert (
        kv_bytes_per_token(spec.model, spec.decode) * 16 == kv_bytes_per_token(spec.model, spec.prefill) * 9
    )


def test_deepseeks_fp8_layout_takes_656_bytes_a_token_and_layer(make_spec: MakeSpec) -> None:
    """The one compressed head is on every rank of tensor parallelism."""
    spec = make_spec(model__kv_heads=1, model__layers=61, decode__kv_cache_config__dtype="fp8_ds_mla")
    assert kv_bytes_per_token(spec.model, spec.decode) == 656 * 61 * 4


def test_values_of_newer_releases_reach_the_yaml() -> None:
    newer = ("kv_cache_config.dtype=fp8_ds_mla", "cache_transceiver_config.transceiver_runtime=auto")
    engine = composed("stack=dynamo_v1", *(f"decode.{words}" for words in newer)).trial_spec.decode
    assert isinstance(engine, TrtLlmEngine)
    written = yaml.safe_load(engine_yaml(engine, "nested"))
    assert written["kv_cache_config"]["dtype"] == "fp8_ds_mla"
    assert written["cache_transceiver_config"]["transceiver_runtime"] == "auto"


def test_a_worker_with_context_parallelism_is_placed_with_all_its_ranks(make_spec: MakeSpec) -> None:
    spec = make_spec(decode__context_parallel_size=2, split__decode_workers=2)
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split)
    assert placed is not None
    assert {len(worker.gpus) for worker in placed if worker.role == "decode"} == {8}
    assert yaml.safe_load(engine_yaml(spec.decode, "nested"))["context_parallel_size"] == 2


def test_a_buffer_without_a_size_is_that_of_the_engine(make_spec: MakeSpec) -> None:
    spec = make_spec(decode__cache_transceiver_config__max_tokens_in_buffer=None)
    assert transfer_buffer_bytes_per_gpu(spec.model, spec.decode) == 2**30
    assert yaml.safe_load(engine_yaml(spec.decode, "nested"))["cache_transceiver_config"] == {
        "backend": "DEFAULT"
    }


ROWS = [
    ("backend", "Literal['pytorch']", ["pytorch"]),
    ("moe_config.backend", "Literal['CUTLASS', 'TRTLLM']", ["CUTLASS", "TRTLLM"]),
    ("moe_config.max_num_tokens", "Optional[Annotated[int, Gt(gt=0)]]", []),
    ("kv_cache_config.tokens_per_block", "<class 'int'>", []),
    ("kv_cache_config.enable_block_reuse", "<class 'bool'>", []),
    ("kv_cache_config.free_gpu_memory_fraction", "Optional[float]", []),
    ("nvfp4_gemm_config.allowed_backends", "List[Literal['cutlass', 'cutedsl']]", ["cutlass", "cutedsl"]),
]


@pytest.fixture
def schema(tmp_path: Path) -> str:
    """Write a list of arguments in the form of TensorRT-LLM's."""
    file = tmp_path / "llm_args.json"
    rows = [
        {"path": path, "annotation": kind, "allowed_values": allowed, "converter": "", "kind": "value"}
        for path, kind, allowed in ROWS
    ]
    typed = [path for path in yaml.safe_load(engine_yaml(DEFAULT.decode, "nested")) if "config" not in path]
    free = [
        {"path": path, "annotation": "Any", "allowed_values": []} for path in [*typed, "cuda_graph_config"]
    ]
    file.write_text(json.dumps({"TorchLlmArgs": rows + free}))
    return str(file)


def named(spec: TrialSpec) -> list[Finding]:
    return [finding for finding in check(spec) if "refuses keys" in finding.why]


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        ({"decode__extra": {"moe_confg": {}}}, "decode.extra.moe_confg", "moe_config"),
        ({"decode__extra": {"moe_config": {"bakend": 1}}}, "decode.extra.moe_config.bakend", "backend"),
        (
            {"prefill__kv_cache_config__token_per_block": 64},
            "prefill.kv_cache_config.token_per_block",
            "tokens_per_block",
        ),
        (
            {"prefill__extra": {"tokens_per_blok": 64}},
            "prefill.extra.tokens_per_blok",
            "kv_cache_config.tokens_per_block",
        ),
        (
            {"prefill__extra": {"tokens_per_block": 64}},
            "prefill.extra.tokens_per_block",
            "kv_cache_config.tokens_per_block",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_what_is_near(
    change: dict[str, Any], path: str, expected: str, schema: str, make_spec: MakeSpec
) -> None:
    (unsure,) = named(make_spec(**V1, **change))
    assert (unsure.severity, unsure.path) == ("warning", path)
    assert unsure.expected.startswith(f"{expected},")
    found = [
        f for f in named(make_spec(**V1, **change, stack__engine_schema=schema)) if f.severity == "error"
    ]
    assert [(f.path, f.expected) for f in found] == [(path, unsure.expected)]


@pytest.mark.parametrize(
    ("group", "misspelt", "meant"),
    [
        ("speculative_config", "num_nextn_predict_layer", "num_nextn_predict_layers"),
        ("moe_config.load_balancer", "num_slot", "num_slots"),
        ("scheduler_config.dynamic_batch_config", "enable_batch_size_tunin", "enable_batch_size_tuning"),
        ("peft_cache_config", "num_host_module_layers", "num_host_module_layer"),
    ],
)
def test_a_misspelt_key_of_a_group_without_settings_is_named_with_what_is_near(
    group: str, misspelt: str, meant: str, make_spec: MakeSpec
) -> None:
    def written(key: str) -> dict[str, Any]:
        top, _, below = group.partition(".")
        value = {below: {key: 1}} if below else {key: 1}
        return (
            {"decode__scheduler_config": value}
            if top == "scheduler_config"
            else {"decode__extra": {top: value}}
        )

    assert not named(make_spec(**V1, **written(meant)))
    (found,) = named(make_spec(**V1, **written(misspelt)))
    assert (found.severity, found.expected) == ("warning", f"{meant}, a key of the engine")
    assert found.path.endswith(f"{group}.{misspelt}")


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        (
            {"decode__kv_cache_config__host_cache_siz": 1},
            "decode.kv_cache_config.host_cache_siz",
            "kv_cache_config.host_cache_size, a key of the engine",
        ),
        (
            {"decode__extra": {"attention_dp_config": {"enable_balanc": True}}},
            "decode.extra.attention_dp_config.enable_balanc",
            "extra.attention_dp_config.enable_balance, a key of the engine",
        ),
        (
            {"decode__extra": {"attention_dp_config": {"other": True}}},
            "decode.extra.attention_dp_config.other",
            "no such key in extra",
        ),
    ],
)
def test_a_misspelt_key_of_the_flat_generation_is_named_with_what_is_near(
    change: dict[str, Any], path: str, expected: str, make_spec: MakeSpec
) -> None:
    (found,) = (finding for finding in check(make_spec(**change)) if finding.path == path)
    assert (found.severity, found.expected) == ("error", expected)


@pytest.mark.parametrize("key", ["moe_confg", "foo_bar"])
def test_a_key_that_the_flat_generation_lacks_is_named(key: str, make_spec: MakeSpec) -> None:
    (found,) = named(make_spec(decode__extra={key: 1}))
    assert (found.severity, found.path) == ("warning", f"decode.extra.{key}")
    assert found.expected == "a key that TensorRT-LLM has with flat engine YAML"


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        ({"backend": "MEGA"}, "moe_config.backend", "one of CUTLASS, TRTLLM"),
        ({"max_num_tokens": "8"}, "moe_config.max_num_tokens", "a value of type int"),
        ({"max_num_tokens": True}, "moe_config.max_num_tokens", "a value of type int"),
        ({"max_num_tokens": None}, "", ""),
        ({"load_balancer": "f.yaml"}, "moe_config.load_balancer", "a key of stack.engine_schema, or"),
    ],
)
def test_values_are_checked_against_the_arguments(
    change: dict[str, Any], path: str, expected: str, schema: str, make_spec: MakeSpec
) -> None:
    spec = make_spec(**V1, decode__extra={"moe_config": change}, stack__engine_schema=schema)
    found = [finding for finding in named(spec) if finding.path.startswith("decode.extra")]
    assert [finding.path.removeprefix("decode.extra.") for finding in found] == [path] * bool(path)
    assert all(finding.expected.startswith(expected) for finding in found)
    assert all((finding.severity == "warning") == ("load_balancer" in path) for finding in found)


def test_keys_of_real_deployments_are_not_taken_for_misspelt_ones(make_spec: MakeSpec) -> None:
    spec = make_spec(
        **V1,
        decode__kv_cache_config__host_cache_size=0,
        decode__cache_transceiver_config__kv_transfer_timeout_ms=600000,
        decode__extra={
            "moe_config": {"backend": "TRTLLM"},
            "num_postprocess_workers": 4,
            "print_iter_log": True,
        },
    )
    assert not named(spec)


@pytest.mark.parametrize("text", ["", "[]", '{"TorchLlmArgs": [{}]}'])
def test_another_file_is_no_list_of_arguments(text: str, tmp_path: Path, make_spec: MakeSpec) -> None:
    (tmp_path / "x.json").write_text(text)
    for name in ("x.json", "none.json"):
        with pytest.raises(ConfigurationError, match=r"stack\.engine_schema: found .* expected TensorRT-LLM"):
            check(make_spec(**V1, stack__engine_schema=str(tmp_path / name)))
