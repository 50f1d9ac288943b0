"""Test the composed configuration: the reference, every shipped file, and what must not pass silently."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.config import compose_overrides, trial_overrides
from tune.engines.check import check
from tune.errors import ConfigurationError
from tune.spec.cluster_rules import EXAMPLE_CLUSTER, check_cluster

GROUPS = (
    "model",
    "hardware",
    "split",
    "prefill",
    "decode",
    "aggregated",
    "load",
    "slo",
    "stack",
    "cluster",
    "search",
)
ROOT = Path(__file__).parents[2]
OPTIONS = [
    f"{group}={path.stem}" for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
]
LENGTHS_OF_TESTS = str(ROOT / "tests" / "data" / "dataset" / "trace.csv")
FILLED_IN = {
    "load=lognormal": [
        *("load.dataset.inputs.median_tokens=1200", "load.dataset.inputs.p95_tokens=6000"),
        *("load.dataset.outputs.mean_tokens=300", "load.dataset.outputs.sd_tokens=250"),
    ],
    "load=csv": [f"load.dataset.path={LENGTHS_OF_TESTS}"],
    "load=trace": [f"load.dataset.path={LENGTHS_OF_TESTS}"],
    "stack=dynamo_vllm": ["prefill=vllm", "decode=vllm"],
    "prefill=vllm": ["stack=dynamo_vllm", "decode=vllm"],
    "prefill=vllm_one_gpu": ["stack=dynamo_vllm", "decode=vllm_one_gpu"],
    "decode=vllm": ["stack=dynamo_vllm", "prefill=vllm"],
    "aggregated=vllm": ["stack=dynamo_vllm", "split=aggregated"],
    "aggregated=vllm_one_gpu": ["stack=dynamo_vllm", "split=aggregated"],
    "decode=vllm_one_gpu": ["stack=dynamo_vllm", "prefill=vllm_one_gpu"],
}
"""What an option needs beside its name."""


def test_default_is_the_published_configuration() -> None:
    composed = compose_overrides([]).settings
    assert (composed.model.name, composed.model.layers) == ("llama3.1-405b-fp4", 126)
    assert (composed.hardware.nodes, composed.hardware.gpus_per_node, composed.hardware.gpus) == (18, 4, 72)
    assert composed.split.label == "14P4D"
    assert composed.split.disaggregation_strategy == "prefill_first"
    assert (composed.prefill.tensor_parallel_size, composed.decode.tensor_parallel_size) == (4, 4)
    assert composed.load.target_qps == 15.75
    assert (composed.slo.ttft_p99_s, composed.slo.tpot_p99_s) == (4.5, 0.080)
    assert composed.load.min_duration_s == 600
    assert composed.load.dataset.samples == 8313
    assert (composed.load.request_timeout_s, composed.load.response_timeout_s) == (7200, 7200)
    assert composed.load.expected_queries == 16626, "two passes over the dataset, as the published run"
    assert composed.stack.name == "dynamo_v0"
    assert composed.cluster.kind == "sim"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "parallel"),
    [
        ([], 16),
        (["+sweep=pd_split", "search=random"], 16),
        (["+sweep=pd_split", "search=grid"], 16),
        (["+sweep=pd_split"], 3),
        (["+sweep=pd_split", "search=gp"], 3),
        (["+sweep=pd_split", "load.mode=capacity"], 1),
        (["+sweep=pd_split", "load.mode=capacity", "search=tpe"], 1),
        (["cluster=local"], 1),
        (["cluster=slurm", "+sweep=pd_split", "search=random"], 1),
    ],
)
def test_parallel_trials_suit_backend_and_search_unless_set(words: list[str], parallel: int) -> None:
    assert compose_overrides(words).settings.parallel == parallel
    assert compose_overrides([*words, "study.parallel=5"]).settings.parallel == 5


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_shipped_option_composes(option: str) -> None:
    assert compose_overrides([option, *FILLED_IN.get(option, ())]).settings.trial_spec.trial_id


@pytest.mark.slow
def test_every_load_is_composed_again_from_the_overrides_of_its_trial(tmp_path: Path) -> None:
    lengths, trace = tmp_path / "lengths.csv", tmp_path / "my trace.jsonl"
    lengths.write_text("100,10\n300,20\n")
    trace.write_text(
        "".join(
            f'{{"timestamp": {t}, "input_length": 9, "output_length": {5 + t}}}\n' for t in (0, 500, 2000)
        )
    )
    loads = {
        "fixed": ["load.dataset.inputs.tokens=8192", "load.dataset.inputs.range_ratio=0.2"],
        "lognormal": FILLED_IN["load=lognormal"],
        "csv": [f"load.dataset.path={lengths}"],
        "trace": [f"load.dataset.path='{trace}'"],
    }
    found = {}
    for name, overrides in loads.items():
        composed = compose_overrides([f"load={name}", *overrides]).settings
        spec = composed.trial_spec
        assert compose_overrides(trial_overrides(spec, composed)).settings.trial_spec == spec
        dataset = spec.load.dataset
        longest = (dataset.longest_prompt_tokens, dataset.longest_answer_tokens)
        found[name] = (dataset.name, dataset.samples, *longest, spec.load.target_qps)
    assert found == {
        "fixed": ("fixed", 1000, 9831, 1229, 10.0),
        "lognormal": ("lognormal", 2000, 16384, 2048, 10.0),
        "csv": ("lengths", 2, 300, 20, 10.0),
        "trace": ("my trace", 3, 9, 2005, 1.0),
    }


@pytest.mark.parametrize(
    ("words", "rate_qps", "split"),
    [
        ((), 15.75, "14P4D"),
        (("hardware=gb200_nvl36",), 7.875, "7P2D"),
        (("hardware=gb200_nvl36", "split=1p1d", "load.target_qps=15.75"), 15.75, "1P1D"),
        (("hardware.nodes=1", "hardware.gpus_per_node=8", "split=1p1d"), 1.75, "1P1D"),
    ],
)
def test_rate_suits_the_size_of_the_rack(words: tuple[str, ...], rate_qps: float, split: str) -> None:
    settings = compose_overrides(words).settings
    assert (settings.load.target_qps, settings.split.label) == (rate_qps, split)
    again = compose_overrides(trial_overrides(settings.trial_spec, settings)).settings
    assert again.trial_spec == settings.trial_spec, "also a rate that is the default of another size"


@pytest.mark.slow
def test_own_cluster_facts_replace_the_reference() -> None:
    facts = compose_overrides(["cluster=slurm"]).settings.cluster
    findings = check_cluster(facts, "/home/ada", placeholders="warning")
    example = {f"cluster.{name}" for name in EXAMPLE_CLUSTER} | {"cluster.model_path"}
    assert {(finding.path, finding.severity) for finding in findings} == {
        (name, "warning") for name in example
    }
    named = compose_overrides(["cluster=slurm", "cluster/facts@cluster=gb200_rack"]).settings.cluster
    assert named == compose_overrides(["cluster=slurm"]).settings.cluster


LIVE = ("cluster=local", "stack=dynamo_v1_mocker")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "mode"),
    [
        ((), "fixed"),
        (("+sweep=pd_split",), "fixed"),
        (LIVE, "fixed"),
        (("cluster=slurm",), "fixed"),
        ((*LIVE, "+sweep=pd_split"), "capacity"),
        (("cluster=slurm", "+sweep=pd_split"), "capacity"),
        (("cluster=slurm", "+sweep=pd_split", "load.mode=fixed"), "fixed"),
        (("cluster=slurm", "+sweep=target_qps"), "fixed"),
        (("+sweep=pd_split", "load.mode=capacity"), "capacity"),
    ],
)
def test_real_deployments_search_for_their_capacity(overrides: tuple[str, ...], mode: str) -> None:
    settings = compose_overrides(overrides).settings
    assert settings.load.mode == mode
    if settings.sweep and mode == "capacity":
        assert (settings.load.rate_range_qps, "target_qps" in settings.sweep.space) == ((6.0, 26.0), False)


@pytest.mark.slow
def test_content_of_a_dataset_is_part_of_the_trial(tmp_path: Path) -> None:
    lengths = tmp_path / "my lengths.csv"
    lengths.write_text("input_tokens,output_tokens\n" + "100,10\n" * 8313)
    override = f"load.dataset.path='{lengths}'"
    first = compose_overrides([override]).settings
    again = compose_overrides(trial_overrides(first.trial_spec, first)).settings.trial_spec
    assert again.trial_id == first.trial_spec.trial_id
    overrides = trial_overrides(first.trial_spec, first)
    lengths.write_text("input_tokens,output_tokens\n" + "200,10\n" * 8313)
    assert compose_overrides([override]).settings.trial_spec.trial_id != again.trial_id
    with pytest.raises(ConfigurationError, match=r"load.dataset.sha256: .* is not the one that was measured"):
        compose_overrides(overrides)


def test_reference_breaks_no_rule() -> None:
    assert not [f for f in check(compose_overrides([]).settings.trial_spec) if f.severity == "error"]
