"""Test which split a rack of another size is given, for another workload and other limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.studies import run_composed_study

from tune.records.folders import StudyFolder

TEN_NODES = (
    *("+sweep=pd_split", "load.mode=capacity", "study.n_trials=3", "study.name=ten"),
    *("hardware=gb300_nvl72", "hardware.nodes=10", "split.prefill_workers=6", "split.decode_workers=4"),
    *("load=fixed", "load.dataset.inputs.tokens=2000", "load.dataset.outputs.tokens=300"),
    *("slo.ttft_p99_s=1", "slo.tpot_p99_s=0.03", "load.min_duration_s=90"),
)


@pytest.mark.slow
def test_the_split_of_ten_nodes_is_found_from_another_one(tmp_path: Path) -> None:
    """5P5D holds 30 queries/s, 6P4D that the study begins with 25.4, and 4P6D 26.1, each by its own search.

    A study of twelve trials begins like one of three.
    """
    baseline, *others = run_composed_study(tmp_path, TEN_NODES)
    assert baseline.output_tps_per_gpu
    best = max(others, key=lambda outcome: outcome.output_tps_per_gpu or 0.0)
    assert best.provenance["params"]["prefill_workers"] == 5
    assert best.feasible
    assert 1.15 < (best.output_tps_per_gpu or 0.0) / baseline.output_tps_per_gpu < 1.4
    expected = {p.trial_id: p.expected_capacity_qps for p in StudyFolder(tmp_path / "ten").read_proposals()}
    interval, capacity_qps = expected[best.trial_id], best.capacity_qps.estimate
    assert interval
    assert capacity_qps
    assert 0.97 * interval.low < capacity_qps < 1.03 * interval.high
