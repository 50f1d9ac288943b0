"""Test that workloads which contradict themselves are found, and those that do not are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.composed import composed

from tune.spec.dataset import LognormalLengths, RangeLengths
from tune.spec.memory import MeanSequence
from tune.spec.trial import TrialSpec
from tune.workload.checks import BENCHMARK_INPUTS, BENCHMARK_OUTPUTS, check_workload
from tune.workload.length_summary import describe_load, mean_sequence, summarise_lengths

MakeSpec = Callable[..., TrialSpec]


def found(spec: TrialSpec) -> set[tuple[str, str]]:
    return {(finding.severity, finding.path) for finding in check_workload(spec)}


def test_the_figures_of_the_benchmark_are_those_of_its_file() -> None:
    dataset = composed().load.dataset
    assert (dataset.inputs, dataset.outputs) == (BENCHMARK_INPUTS, BENCHMARK_OUTPUTS)


def test_the_benchmark_does_not_contradict_itself(make_spec: MakeSpec) -> None:
    assert found(make_spec()) == set()
    assert found(make_spec(load__dataset__inputs__mean_tokens=9800.0)) == set(), "as a calibration may say"


def test_a_mean_alone_is_refused_where_the_spread_of_the_benchmark_exceeds_it(make_spec: MakeSpec) -> None:
    spec = make_spec(load__dataset__inputs__mean_tokens=2000.0, load__dataset__outputs__mean_tokens=300.0)
    (finding,) = check_workload(spec)
    assert (finding.severity, finding.path) == ("error", "load.dataset.inputs.sd_tokens")
    assert "sd_tokens 3800 and max_tokens 20000 come from the benchmark's prompts" in finding.found
    assert "load=lognormal" in finding.expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inputs__mean_tokens": 5000.0}, {("warning", "load.dataset.inputs.mean_tokens")}),
        (
            {"inputs__mean_tokens": 2000.0, "inputs__sd_tokens": 900.0},
            {
                ("warning", "load.dataset.inputs.mean_tokens"),
                ("warning", "load.dataset.longest_prompt_tokens"),
            },
        ),
        (
            {
                **{"inputs__mean_tokens": 2000.0, "inputs__sd_tokens": 900.0, "inputs__max_tokens": 8000},
                "longest_prompt_tokens": 8000,
            },
            set(),
        ),
        ({"outputs__mean_tokens": 300.0}, {("warning", "load.dataset.outputs.mean_tokens")}),
        ({"inputs__max_tokens": 20011}, {("error", "load.dataset.inputs.max_tokens")}),
        (
            {"inputs__kind": "fixed", "inputs__mean_tokens": 2000.0},
            {("warning", "load.dataset.longest_prompt_tokens")},
        ),
        (
            {"longest_prompt_tokens": 131_000, "longest_answer_tokens": 2000},
            {("warning", "load.dataset.longest_prompt_tokens")},
        ),
    ],
)
def test_a_changed_benchmark_names_what_is_left_of_it(
    make_spec: MakeSpec, changes: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    assert (
        found(make_spec(**{f"load__dataset__{path}": value for path, value in changes.items()})) == expected
    )


def of_lengths(make_spec: MakeSpec, lengths: Any, **changes: Any) -> TrialSpec:
    spec = make_spec(**changes)
    both = {"inputs": lengths, "outputs": lengths, "samples": 1000}
    longest = {
        "longest_prompt_tokens": lengths.longest_tokens,
        "longest_answer_tokens": lengths.longest_tokens,
    }
    dataset = spec.load.dataset.model_copy(update={**both, **longest})
    return spec.model_copy(update={"load": spec.load.model_copy(update={"dataset": dataset})})


def test_a_clip_that_moves_the_mean_is_found(make_spec: MakeSpec) -> None:
    kind: dict[str, Any] = {"kind": "lognormal", "median_tokens": 1000.0, "p95_tokens": 3000.0}
    tight = LognormalLengths(**kind, min_tokens=300, max_tokens=3000)
    assert found(of_lengths(make_spec, tight)) == {
        *(
            ("warning", f"load.dataset.{group}.{name}")
            for group in ("inputs", "outputs")
            for name in ("min_tokens", "max_tokens")
        ),
    }
    assert found(of_lengths(make_spec, LognormalLengths(**kind, min_tokens=1, max_tokens=16000))) == set()


def test_a_sequence_beyond_the_models_context_is_refused(make_spec: MakeSpec) -> None:
    lengths = RangeLengths(kind="range", tokens=5000, range_ratio=0.0, range_rule="vllm")
    assert found(of_lengths(make_spec, lengths, model__context_tokens=9999)) == {
        ("error", "model.context_tokens")
    }
    assert found(of_lengths(make_spec, lengths, model__context_tokens=10000)) == set()


def test_a_context_length_is_no_part_of_the_trial(make_spec: MakeSpec) -> None:
    assert make_spec(model__context_tokens=8192).trial_id == make_spec().trial_id


def test_a_pass_over_a_long_file_is_announced(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("10,10\n" * 13_000)
    words = ["load=csv", f"load.dataset.path={path}"]
    assert found(composed(*words).trial_spec) == {("warning", "load.concatenate_permutation")}
    part = composed(*words, "load.concatenate_permutation=false").trial_spec
    assert found(part) == set()


def test_memory_counts_with_what_is_sent_and_without_the_file_with_the_longest(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("1000,10\n3000,30\n")
    dataset = composed("load=csv", f"load.dataset.path={path}").load.dataset
    assert mean_sequence(dataset) == MeanSequence(2000.0, 20.0, 30)
    summarise_lengths.cache_clear()
    path.unlink()
    assert mean_sequence(dataset) == MeanSequence(3000, 30, 30)


def test_a_load_is_described_by_what_it_sends(root: Path) -> None:
    trace = root / "tests" / "data" / "dataset" / "trace.csv"
    words = {"fixed": [], "trace": [f"load.dataset.path={trace}"]}
    found = [describe_load(composed(f"load={n}", *w).load) for n, w in words.items()]
    assert found == [
        "fixed: Poisson arrivals; prompts: all 1,024; answers: all 1,024 tokens; "
        "6,000 requests at a mean of 10 queries/s",
        "trace: arrivals of the trace; "
        "prompts: mean 1,867, median 1,335, p99 8,412, longest 12,645; "
        "answers: mean 264, median 206, p99 1,171, longest 1,345 tokens; "
        "2,500 requests at a mean of 6.743 queries/s",
    ]
