from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.rule_cases import BROKEN, COSTLY, GRAPHS, NEIGHBOURS, V1

from tune.engines.check import check
from tune.spec.findings import Finding, only_errors, render_findings
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
GOLDEN = Path(__file__).parent / "golden" / "findings.txt"


def found(spec: TrialSpec) -> set[tuple[str, str]]:
    return {(finding.severity, finding.path) for finding in check(spec)}


def the(spec: TrialSpec, severity: str, path: str) -> Finding:
    (finding,) = [f for f in check(spec) if (f.severity, f.path) == (severity, path)]
    return finding


def test_shipped_trial_has_warnings_and_no_error(make_spec: MakeSpec) -> None:
    spec = make_spec()
    assert found(spec) == {
        ("warning", "decode.max_seq_len"),
        ("warning", "decode.max_batch_size"),
        ("warning", "decode.cuda_graph_config.batch_sizes"),
    }
    assert "answered with 182 tokens" in the(spec, "warning", "decode.max_seq_len").why
    reach = the(spec, "warning", "decode.max_batch_size")
    assert reach.found == "512"
    assert 150 <= int(reach.expected.removeprefix("about ")) <= 175


def test_prefill_engine_of_mid_2025_has_no_overlap_scheduler(make_spec: MakeSpec) -> None:
    path = "prefill.disable_overlap_scheduler"
    assert (
        "stack=dynamo_v1" in the(make_spec(prefill__disable_overlap_scheduler=False), "error", path).expected
    )
    assert ("error", path) not in found(make_spec(**V1, prefill__disable_overlap_scheduler=False))


def test_least_loaded_needs_todays_frontend(make_spec: MakeSpec) -> None:
    old = the(make_spec(stack__router_mode="least-loaded"), "error", "stack.router_mode")
    assert "stack=dynamo_v1" in old.expected
    today = make_spec(**V1, stack__router_mode="least-loaded")
    assert ("error", "stack.router_mode") not in found(today)


def test_trial_within_all_limits_has_no_finding(make_spec: MakeSpec) -> None:
    spec = make_spec(
        decode__max_seq_len=22016,
        decode__max_batch_size=128,
        **{GRAPHS: [1, 2, 4, 8, 16, 32, 64, 96, 128]},
    )
    assert check(spec) == ()


@pytest.mark.parametrize("case", BROKEN)
def test_broken_rule_is_an_error_at_its_path(case: str, make_spec: MakeSpec) -> None:
    changes, path = BROKEN[case]
    assert ("error", path) in found(make_spec(**changes))


@pytest.mark.parametrize("case", COSTLY)
def test_costly_choice_is_a_warning_with_its_cost(case: str, make_spec: MakeSpec) -> None:
    changes, path, cost = COSTLY[case]
    spec = make_spec(**changes)
    assert cost in the(spec, "warning", path).why
    assert only_errors(check(spec)) == ()


SPLIT_HEADS = {"decode__tensor_parallel_size": 16, "split__decode_workers": 1}


ODD_HEADS = {"model__attention_heads": 126}


RANK_PATHS = {f"decode.{key}" for key in ("tensor_parallel_size", "max_batch_size")} | {
    "decode.cuda_graph_config.batch_sizes"
}


def test_with_attention_dp_no_head_is_split_and_no_batch_is_the_whole_workers(make_spec: MakeSpec) -> None:
    split = make_spec(**SPLIT_HEADS, **ODD_HEADS, decode__extra={"enable_attention_dp": False})
    assert {finding.path for finding in check(split)} >= RANK_PATHS
    whole = make_spec(**SPLIT_HEADS, **ODD_HEADS, decode__extra={"enable_attention_dp": True})
    assert not RANK_PATHS & {finding.path for finding in check(whole)}


def test_the_one_kv_head_of_mla_is_no_choice(make_spec: MakeSpec) -> None:
    warned, mla = (make_spec(**SPLIT_HEADS, model__kv_heads=heads) for heads in (2, 1))
    assert "replicated 8 times" in the(warned, "warning", "decode.tensor_parallel_size").why
    assert "decode.tensor_parallel_size" not in {finding.path for finding in check(mla)}


def test_capacity_search_needs_enough_queries_for_a_verdict(make_spec: MakeSpec) -> None:
    short: dict[str, Any] = {"load__concatenate_permutation": False, "load__min_duration_s": 1.0}
    spec = make_spec(load__mode="capacity", **short)
    assert the(spec, "error", "load.min_queries").expected == "at least 459, or load.mode=fixed"
    enough = make_spec(load__mode="capacity", load__min_queries=459, **short)
    assert only_errors(check(enough)) == ()


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_nearest_allowed_value_has_no_finding(case: str, make_spec: MakeSpec) -> None:
    changes, path = NEIGHBOURS[case]
    assert path not in {finding.path for finding in check(make_spec(**changes))}


def test_all_findings_render_as_the_golden_text(make_spec: MakeSpec, regenerate_golden: bool) -> None:
    spec = make_spec(
        split__decode_workers=9,
        decode__max_num_tokens=256,
        decode__kv_cache_config__dtype="auto",
        prefill__extra={"kv_cache_dtype": "fp8"},
        prefill__cache_transceiver_config__max_tokens_in_buffer=20000,
    )
    text = render_findings(check(spec))
    if regenerate_golden:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    changed = difflib.unified_diff(
        GOLDEN.read_text().splitlines(), text.splitlines(), "golden", "rendered", lineterm=""
    )
    assert "\n".join(changed) == "", "if meant: pytest --regenerate-golden"


def test_no_finding_renders_no_text() -> None:
    assert render_findings(()) == ""


@hypothesis_settings(max_examples=150, deadline=None)
@given(
    prefill_tp=st.integers(1, 300),
    decode_tp=st.integers(1, 300),
    decode_pp=st.integers(1, 130),
    workers=st.tuples(st.integers(0, 80), st.integers(0, 80)),
    nodes=st.integers(1, 20),
    sizes=st.none() | st.lists(st.integers(1, 600), max_size=5),
    max_seq_len=st.integers(1, 40000),
    fraction=st.floats(0.001, 1.0),
)
def test_every_valid_trial_is_checked_and_errors_match_placement(  # noqa: PLR0917
    make_spec: MakeSpec,
    prefill_tp: int,
    decode_tp: int,
    decode_pp: int,
    workers: tuple[int, int],
    nodes: int,
    sizes: list[int] | None,
    max_seq_len: int,
    fraction: float,
) -> None:
    spec = make_spec(
        prefill__tensor_parallel_size=prefill_tp,
        decode__tensor_parallel_size=decode_tp,
        decode__pipeline_parallel_size=decode_pp,
        split__prefill_workers=workers[0],
        split__decode_workers=workers[1],
        hardware__nodes=nodes,
        decode__cuda_graph_config=None if sizes is None else {"batch_sizes": sizes},
        decode__max_seq_len=max_seq_len,
        decode__kv_cache_config__free_gpu_memory_fraction=fraction,
    )
    findings = check(spec)
    needed = workers[0] * prefill_tp + workers[1] * decode_tp * decode_pp
    if needed > spec.hardware.gpus or 0 in workers:
        assert only_errors(findings)
    for finding in findings:
        assert all((finding.path, finding.found, finding.expected, finding.why, finding.source))
    assert render_findings(findings).count("  found") == len(findings)
