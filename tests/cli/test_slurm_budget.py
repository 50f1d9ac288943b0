"""Test that a study on real Slurm stops before it would spend more GPU-hours than it may (`slurm`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.local_trials import Start, printed
from support.slurm_rack import SlurmRack
from support.slurm_runs import attempts, job_ids, outcomes
from support.slurm_trials import SPLIT, small, stubbed, sweep

from tune.backends.slurm.commands import show_job
from tune.records.attempt_limit import read_limit
from tune.records.folders import read_attempt
from tune.records.held_time import read_free_after

GPUS, STOP_S, SENDING_S = 12, 5.0, 10.0
BUDGET_S = 4 * SENDING_S + STOP_S - 1
"""Seconds of the nodes that suffice for two trials, and never for four, however fast they start and end."""
RATE = "target_qps: {kind: float, path: load.target_qps, low: 9.0, high: 10.0, step: 1.0}"
OVERHEAD_S = 60.0
"""Seconds for which a job may hold its nodes before its attempt begins, and after its processes ended."""


@pytest.mark.slow
def test_a_study_stops_before_it_would_exceed_its_budget(
    start: Start, slurm: SlurmRack, tmp_path: Path
) -> None:
    """Two of its four trials run at once; the budget is too small for the fourth, at times for the third."""
    words = (*slurm.words, *small(queries=100, seconds=SENDING_S), "cluster.calibration.bring_up_s=0")
    words = (*words, *stubbed(tmp_path / "stub"))
    budget = ("study.parallel=2", "study.n_trials=4", f"study.max_gpu_hours={GPUS * BUDGET_S / 3600}")
    process = start(*sweep(tmp_path, SPLIT, RATE), *words, *budget)
    said = printed(process)
    assert process.returncode == 3, said
    assert "GPU-hours (study.max_gpu_hours) ends the study" in said
    ended = {record.started_at: path for path in attempts(tmp_path) if (record := read_attempt(path))}
    assert len(ended) == len(job_ids(tmp_path)) == len(outcomes(tmp_path)) < 4
    spent_s = 0.0
    for began in sorted(ended):
        limit, own_s = read_limit(ended[began]), read_free_after(ended[began])
        assert limit is not None
        assert own_s is not None, "all its processes have ended"
        assert spent_s + limit.occupied_s + STOP_S <= BUDGET_S + 1e-6, "what others hold is not its own"
        spent_s += own_s
    assert spent_s <= BUDGET_S
    of_slurm_s = sum(show_job(job).occupied_s or 0.0 for job in job_ids(tmp_path))
    assert spent_s - 2.0 <= of_slurm_s <= spent_s + OVERHEAD_S * len(ended)
