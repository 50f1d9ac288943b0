"""Test that a bottleneck built into a simulated trial is found, and that the recommended settings help."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import pytest
from support.composed import composed

from tune.analysis.measure import measure, measure_attempt
from tune.backends.simulated import simulate_attempt
from tune.engines.check import check
from tune.records.folders import PROBE_FOLDER, read_attempt
from tune.records.outcome import Probe
from tune.spec.cluster import Calibration
from tune.spec.findings import only_errors
from tune.spec.trial import TrialSpec

OWN_RACK = (
    *("hardware=gb300_nvl72", "hardware.nodes=10", "split.prefill_workers=4", "split.decode_workers=6"),
    *("load=fixed", "load.dataset.inputs.tokens=2000", "load.dataset.outputs.tokens=300"),
    *("load.target_qps=25", "slo.ttft_p99_s=1", "slo.tpot_p99_s=0.03"),
)
"""README's example of another rack, model, workload and limits."""

SHORT = ("load.concatenate_permutation=false", "load.min_duration_s=240.0")

BOTTLENECKS = {
    "few prefill workers": ("prefill", ("split.prefill_workers=6", "split.decode_workers=12")),
    "small chunks": ("prefill", ("prefill.max_num_tokens=1024",)),
    "few decode workers": ("decode_kv", ("split.prefill_workers=16", "split.decode_workers=2")),
    "tiny decode batch": (
        "decode_slots",
        ("decode.max_batch_size=64", "decode.cuda_graph_config.batch_sizes=[1,2,4,8,16,32,64]"),
    ),
    "tiny KV cache": ("decode_kv", ("decode.kv_cache_config.free_gpu_memory_fraction=0.4",)),
    "slow decode steps": ("decode_step_time", ("slo.tpot_p99_s=0.045", "slo.ttft_p99_s=null")),
    "low rate": ("rate", ("load.target_qps=8.0",)),
}


@lru_cache
def short_trial(overrides: tuple[str, ...]) -> tuple[TrialSpec, Calibration]:
    settings = composed(*SHORT, *overrides)
    assert settings.cluster.calibration is not None
    return settings.trial_spec, settings.cluster.calibration


def run(folder: Path, overrides: tuple[str, ...], **calibration: float) -> Probe:
    spec, usual = short_trial(overrides)
    changed = usual.model_copy(update=calibration)
    simulate_attempt(spec, changed, folder, lambda _activity: None)
    record = read_attempt(folder)
    assert record is not None
    assert record.error is None
    return measure(folder / PROBE_FOLDER, spec, PROBE_FOLDER)


def bottleneck_of(probe: Probe) -> str:
    assert probe.bottleneck is not None
    return probe.bottleneck.kind


def suffered_s(probe: Probe, what: str) -> float:
    """Return the seconds of a bottleneck: the stages of the slowest first tokens, or p99 of TPOT."""
    use = probe.breakdown
    assert use is not None
    assert probe.tpot_s is not None
    seconds = {
        "prefill": (use.tail_queue_s or 0.0) + (use.tail_prefill_s or 0.0),
        "decode_slots": use.tail_slot_s,
        "decode_kv": use.tail_slot_s,
        "decode_step_time": probe.tpot_s.p99,
        "kv_transfer": use.tail_transfer_s,
    }[what]
    assert seconds is not None
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BOTTLENECKS))
def test_built_in_bottleneck_is_found(name: str, tmp_path: Path) -> None:
    expected, overrides = BOTTLENECKS[name]
    assert bottleneck_of(run(tmp_path, overrides)) == expected


@pytest.mark.slow
def test_in_a_capacity_search_the_weaker_pool_is_the_bottleneck(tmp_path: Path) -> None:
    """README's own rack as 4P6D: TPOT uses more of its limit, and prefill workers end the search."""
    short = ("load.mode=capacity", "load.dataset.samples=2000", "load.min_duration_s=60.0")
    settings = composed(*OWN_RACK, *short, "load.min_queries=2000")
    calibration = settings.cluster.calibration
    assert calibration is not None
    simulate_attempt(settings.trial_spec, calibration, tmp_path, lambda _activity: None)
    probes = measure_attempt(tmp_path, settings.trial_spec)
    full = next(probe for probe in probes if probe.full)
    assert full.constraints.tpot_p99 is not None
    assert full.constraints.ttft_p99 is not None
    assert full.constraints.tpot_p99 > full.constraints.ttft_p99
    assert full.bottleneck is not None
    assert full.bottleneck.kind == "prefill"
    assert full.bottleneck.recommendations[0].text == "one more prefill worker, 5P5D"
    assert "pool capacity in queries/s: " in full.bottleneck.evidence


@pytest.mark.slow
def test_slow_kv_transfer_is_found_as_bottleneck(tmp_path: Path) -> None:
    slow = run(tmp_path / "slow", (), kv_transfer_bytes_per_s=0.25e9)
    assert bottleneck_of(slow) == "kv_transfer"
    faster = run(tmp_path / "faster", (), kv_transfer_bytes_per_s=0.5e9)
    assert suffered_s(faster, "kv_transfer") < suffered_s(slow, "kv_transfer")


def test_overloaded_frontend_is_found_as_bottleneck(tmp_path: Path) -> None:
    messages_per_s = 9_900  # of the reference configuration: its output tokens/s, one a message
    slow = run(tmp_path / "slow", (), frontend_message_s=1.2 / messages_per_s)
    assert bottleneck_of(slow) == "frontend"
    quick = run(tmp_path / "quick", (), frontend_message_s=0.1 / messages_per_s)
    assert bottleneck_of(quick) != "frontend"


@pytest.mark.slow
def test_slow_decode_worker_is_distinguished_from_its_pool(tmp_path: Path) -> None:
    limited = ("slo.tpot_p99_s=0.06", "slo.ttft_p99_s=null")
    alike = {"head_node_scale": 1.0, "large_batch_weight_reads": 0.0}
    uneven = run(tmp_path / "uneven", limited, last_decode_worker_scale=1.3, **alike)
    even = run(tmp_path / "even", limited, last_decode_worker_scale=1.0, **alike)
    assert uneven.bottleneck is not None
    assert even.bottleneck is not None
    assert "as a slower one would" in uneven.bottleneck.evidence
    assert "as a slower one would" not in even.bottleneck.evidence


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BOTTLENECKS) - {"low rate"}))
def test_recommended_settings_keep_rules_and_reduce_the_bottleneck(name: str, tmp_path: Path) -> None:
    """Try all but larger workers, which are fewer: the simulator judges each before it is shown."""
    expected, overrides = BOTTLENECKS[name]
    before = run(tmp_path / "before", overrides)
    assert before.bottleneck is not None
    settings = [
        remedy.overrides
        for remedy in before.bottleneck.recommendations
        if remedy.overrides and "tensor_parallel_size" not in remedy.overrides[0]
    ]
    assert settings
    for number, tried in enumerate(settings):
        assert not only_errors(check(short_trial((*overrides, *tried))[0]))
        after = run(tmp_path / str(number), (*overrides, *tried))
        assert suffered_s(after, expected) < suffered_s(before, expected), tried


@pytest.mark.slow
def test_higher_rate_gives_more_tokens_where_only_the_rate_limits(
    tmp_path: Path,
) -> None:
    before = run(tmp_path / "before", BOTTLENECKS["low rate"][1])
    assert before.bottleneck is not None
    (remedy,) = before.bottleneck.recommendations
    after = run(tmp_path / "after", remedy.overrides)
    assert after.feasible
    assert (after.output_tps or 0.0) > (before.output_tps or math.inf)
    assert (after.constraints.ttft_p99 or 0.0) > (before.constraints.ttft_p99 or 0.0)
