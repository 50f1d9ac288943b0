"""Test that every shipped hardware, with a split that fits it, plans and answers every request."""

from __future__ import annotations

import numpy as np
import pytest
from support.composed import composed
from support.sim_trials import short_trial

from tune.deploy.plan import render
from tune.engines.check import check
from tune.sim.simulator import simulate_serving

SPLITS = {"gb200_nvl36": (7, 2), "gb200_nvl72": (14, 4), "gb300_nvl72": (14, 4), "b200_dgx": (1, 1)}
QPS_PER_GPU = 0.07


@pytest.mark.slow
@pytest.mark.parametrize("hardware", SPLITS)
def test_every_hardware_plans_and_simulates(hardware: str) -> None:
    prefill, decode = SPLITS[hardware]
    gpus = 4 * (prefill + decode)
    split = (f"split.prefill_workers={prefill}", f"split.decode_workers={decode}")
    spec, calibration = short_trial(f"hardware={hardware}", *split, f"load.target_qps={QPS_PER_GPU * gpus}")
    assert spec.hardware.gpus == gpus
    assert not [finding for finding in check(spec) if finding.severity == "error"]
    facts = composed("cluster=slurm").cluster
    workers = [p for p in render(spec, facts).processes if p.name.startswith(("prefill_w", "decode_w"))]
    assert len(workers) == prefill + decode
    log = simulate_serving(spec, calibration)
    assert (log.done_ns > log.first_token_ns).all()
    tpot_s = (log.done_ns - log.first_token_ns) / (log.output_tokens - 1) / 1e9
    assert 0.01 < np.median(tpot_s) < 0.08
