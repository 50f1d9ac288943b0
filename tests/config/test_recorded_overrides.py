"""Test that the overrides on record compose to the same trial."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tune.config import compose_overrides, shipped_options, trial_overrides
from tune.spec.trial import TrialSpec

CONFIGURATIONS = [
    [],
    ["split.prefill_workers=13", "split.decode_workers=5", "load.target_qps=14"],
    ["hardware=gb300_nvl72", "model=llama3_1_70b_fp4", "stack=dynamo_v1", "slo=server"],
    ["decode.cuda_graph_config=null", "prefill.kv_cache_config.enable_block_reuse=true"],
    ["prefill.cuda_graph_config={enable_padding:true,batch_sizes:[1,2,4]}"],
    ["+decode.extra.moe_config={backend: CUTLASS, sizes: [1, 2.5, null, true, '1'], deep: {a: {}}}"],
    ["cluster=slurm", "cluster.partition='a, b'", "cluster.extra_sbatch=['--comment=\"x y\"']"],
    ["cluster.calibration.prefill_scale=0.123456789012345"],
    ["decode.scheduler_config={capacity_scheduler_policy: MAX_UTILIZATION}"],
    ["decode.kv_cache_config.tokens_per_block=64", "+decode.kv_cache_config.host_cache_size=0"],
    [
        "decode.cuda_graph_config={batch_sizes: null, max_batch_size: 96}",
        "+decode.cuda_graph_config.mode=decode",
    ],
    ["decode.cache_transceiver_config={max_tokens_in_buffer: null, transceiver_runtime: PYTHON}"],
    ["prefill.context_parallel_size=2", "+prefill.extra.cp_config={cp_type: HELIX}", "decode.backend=null"],
    ["load.mode=capacity", "load.rate_range_qps=[6.0,25.5]"],
    ["prefill.scheduler_config=null", "prefill.enable_chunked_prefill=null", "decode.backend=null"],
    [
        *("stack=dynamo_vllm", "prefill=vllm", "decode=vllm"),
        *("+prefill.env.UCX_TLS=rc", "+decode.env.HF_TOKEN=null", "+decode.extra.seed=1"),
    ],
    [
        *("stack=dynamo_vllm", "cluster=local", "hardware=h200_x2", "split=1p1d", "load=fixed"),
        *("model=llama3_1_70b_24layers", "prefill=vllm_one_gpu", "decode=vllm_one_gpu"),
    ],
    *([f"stack={name}"] for name in shipped_options("stack") if name != "dynamo_vllm"),
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CONFIGURATIONS, ids=[" ".join(o) or "default" for o in CONFIGURATIONS])
def test_overrides_of_a_trial_compose_to_the_same_trial(overrides: list[str]) -> None:
    composed = compose_overrides(overrides).settings
    again = compose_overrides(trial_overrides(composed.trial_spec, composed)).settings
    assert again.trial_spec == composed.trial_spec
    assert again.trial_spec.trial_id == composed.trial_spec.trial_id
    assert again.cluster == composed.cluster


HARD_TEXTS = [
    "${x}", "${oc.env:HOME}", "$(date)", "'", '"', "\\'", "a\\", "a\\b", "\\${x}", "\\\\${x}\\", "???",
    "null", "1e3", "True", "é", "a,b", "[a]", "{a:b}", "=", " ", "#", "~x", "+y", "/a b:/c",
]  # fmt: skip


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1, max_size=20)
    ),
    number=st.floats(1e-3, 1e6),
)
@example(texts=HARD_TEXTS, number=1 / 3)
def test_any_text_and_number_survive_the_override_grammar(texts: list[str], number: float) -> None:
    composed = compose_overrides([]).settings
    cluster = composed.cluster.model_copy(update={"container_mounts": tuple(texts)})
    load = composed.load.model_copy(update={"target_qps": number})
    spec = composed.trial_spec.model_copy(update={"load": load})
    overrides = trial_overrides(spec, composed.model_copy(update={"cluster": cluster}))
    again = compose_overrides(overrides).settings
    assert again.cluster.container_mounts == tuple(texts)
    assert again.trial_spec == spec


ODD_KEYS = (
    "", " ", "1", "1e3", "=", "True", "a b", "a-b", "a.b", "a/b", "a:b", "a,b", "null", "x",
    "{x}", "${y}", "é",
)  # fmt: skip


ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


KEYS = st.sampled_from(ODD_KEYS) | ANY_TEXT


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1e3, 1e3) | KEYS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(extra=st.dictionaries(KEYS, VALUES, max_size=3))
@example(extra={"a.b": 1, "": {"é": "${x}"}})
def test_any_key_of_a_free_mapping_survives_recorded_overrides(extra: dict[str, object]) -> None:
    composed = compose_overrides([]).settings
    plain = composed.trial_spec.model_dump(mode="json")
    plain["prefill"]["extra"] = extra
    plain["decode"]["kv_cache_config"] |= extra
    spec = TrialSpec.model_validate_json(json.dumps(plain))
    again = compose_overrides(trial_overrides(spec, composed)).settings.trial_spec
    assert again.prefill.extra == spec.prefill.extra
    assert again.decode.kv_cache_config == spec.decode.kv_cache_config
    assert again.trial_id == spec.trial_id
