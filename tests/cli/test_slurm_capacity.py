"""Test a study on a cluster, without load.mode: each trial is one deployment, searched for its capacity.

Real Slurm, real Dynamo with mock engines, real LoadGen.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.composed import composed
from support.local_trials import Start
from support.slurm_rack import SlurmRack
from support.slurm_runs import attempts, job_ids, outcomes
from support.slurm_trials import SPLIT, small, sweep

RATE = "target_qps: {kind: float, path: load.target_qps, low: 20.0, high: 80.0, step: 10.0}"

SEARCHED = (
    *("load.resolution=0.2", "load.dataset.inputs.mean_tokens=200.0"),
    *("load.dataset.outputs.mean_tokens=20.0", "slo.ttft_p99_s=1.0", "slo.tpot_p99_s=null"),
)
"""One prefill worker bounds a rate of some 69 queries/s, two of them one above what is asked."""


@pytest.mark.slow
def test_study_on_slurm_finds_the_capacity_of_each_deployment(
    start: Start, slurm: SlurmRack, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    """Two splits in one job, which starts anew only what differs."""
    words = (*slurm.words, *small(queries=500, seconds=5), *SEARCHED, *dynamo, "study.trials_per_job=2")
    process = start(*sweep(tmp_path, SPLIT, RATE, mode=None), *words)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(job_ids(tmp_path)) == 1
    held_qps = {}
    for outcome in outcomes(tmp_path):
        assert outcome["status"] == "measured"
        short, *_, last = outcome["probes"]
        assert (short["queries"], short["full"], last["full"]) == (459, False, True)
        found, phases = outcome["capacity_qps"], outcome["attempts"][0]["phases"]
        assert 20 <= found["low"] <= found["estimate"] * 1.1
        assert all(phases[name] > 0 for name in ("bring_up_s", "warm_up_s", "probes_s", "search_s"))
        held_qps[outcome["trial_id"]] = found["low"]
    report = tmp_path / "reports" / "mine-slurm"
    assert "QPS verified" in (report / "index.html").read_text()
    rows = json.loads((report / "ranking.json").read_text())
    assert {row["params"]["prefill_workers"] for row in rows} == {1, 2}
    again = {row["trial_id"]: composed(*row["overrides"]).load for row in rows}
    assert {load.mode for load in again.values()} == {"fixed"}
    assert {trial_id: load.target_qps for trial_id, load in again.items()} == held_qps
    _require_kept(attempts(tmp_path), "g01_etcd", "g01_nats", "g01_frontend", "g01_prefill_w0")


def _require_kept(folders: list[Path], *processes: str) -> None:
    """Require that, of the later attempt's logs, only those of `processes` are links to the earlier one's."""
    first, second = sorted(
        folders, key=lambda each: json.loads((each / "attempt.json").read_text())["started_at"]
    )
    kept = {path.stem: path.resolve().parents[1] for path in (second / "logs").iterdir() if path.is_symlink()}
    assert kept == dict.fromkeys(processes, first)
