"""Several rates on one deployment in a real Slurm job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_trials import Start, printed
from slurm_rack import SlurmRack
from slurm_trials import small, stubbed

SEARCH = ("load.mode=capacity", "load.bracket_qps=[100.0,100.0]", "load.resolution=0.5")


@pytest.mark.slow
def test_a_job_finds_the_highest_rate_on_its_deployment(
    start: Start, slurm: SlurmRack, tmp_path: Path
) -> None:
    asked = (*small(queries=500, seconds=5), *SEARCH, *stubbed(tmp_path / "stub"))
    process = start(*slurm.words, *asked)
    said = printed(process)
    assert process.returncode == 0, said
    (path,) = tmp_path.glob("runs/*/*/outcome.json")
    outcome = json.loads(path.read_text())
    assert outcome["capacity_qps"]["low"] == 100.0
    assert [(probe["queries"], probe["full"]) for probe in outcome["probes"]] == [(459, False), (500, True)]
    assert outcome["attempts"][0]["phases"]["probes_s"] > 5
