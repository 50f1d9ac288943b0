"""Compose and render the facts of a cluster that docs/how-to/slurm.md shows."""

from __future__ import annotations

import re
from pathlib import Path

from tune.config import compose_overrides
from tune.deploy.job_script import container_options, sbatch_options


def test_documented_facts_render_a_job(root: Path, tmp_path: Path) -> None:
    (text,) = re.findall(
        r"^```yaml\n(.*?)^```", (root / "docs" / "how-to" / "slurm.md").read_text(), re.S | re.M
    )
    (tmp_path / "cluster" / "facts").mkdir(parents=True)
    (tmp_path / "cluster" / "facts" / "mine.yaml").write_text(text)
    words = ["cluster=slurm", "cluster/facts@cluster=mine"]
    facts = compose_overrides(words, [str(tmp_path)]).settings.cluster
    assert sbatch_options(facts, 18, 4) == {
        "job-name": "tune",
        "nodes": 18,
        "partition": "batch",
        "account": "inference",
        "time": "4:00:00",
        "signal": "B:USR2@90",
        "gpus-per-node": 4,
        "no-requeue": True,
        "exclusive": True,
        "constraint": "gb200",
        "mem": "0",
    }
    assert len(container_options(facts, mounts_scratch=False)) == 3
    assert facts.calibration is not None, "mock engines run there"
