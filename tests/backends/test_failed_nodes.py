"""Test that a node that fails twice in a study is named, and avoided by its further jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.slurm_study import FACTS, SPEC, Study

from tune.backends.slurm.failed_nodes import nodes_to_avoid
from tune.backends.slurm.held_allocation import HeldAllocation, HeldSteps
from tune.backends.slurm.job_monitor import JobMonitor
from tune.errors import ConfigurationError
from tune.records.folders import read_attempt

pytestmark = pytest.mark.slow


def fail(study: Study, name: str, node: str) -> Path:
    """Submit a trial whose job loses `node`; return its attempt."""
    handle = study.submit(name)
    (job_id,) = set(study.slurm.jobs) - study_done(study)
    study.nodes.end(job_id, "NODE_FAIL", failed=node, nodes="g[01-18]", held="0:05")
    assert study.backend.poll(handle) == "ended"
    return Path(handle)


def study_done(study: Study) -> set[str]:
    return {job_id for job_id, job in study.slurm.jobs.items() if job["state"] != "PENDING"}


def test_second_failure_excludes_the_node(study: Study) -> None:
    attempt = fail(study, "a", "g07")
    record = read_attempt(attempt)
    assert record is not None
    assert record.failed_nodes == ("g07",)
    fail(study, "b", "g03")
    fail(study, "c", "g07")
    study.submit("d")
    options = [job["options"].get("exclude") for job in study.slurm.jobs.values()]
    assert options == [None, None, None, "g07"]
    named = [line for line in study.said if "g07 failed twice or more in this study" in line]
    assert len(named) == 1
    assert "cluster.exclude=[g07]" in named[0]


def test_next_process_of_the_study_knows_it(study: Study) -> None:
    fail(study, "a", "g07")
    fail(study, "b", "g07")
    study.again()
    study.submit("c")
    assert [job["options"].get("exclude") for job in study.slurm.jobs.values()][-1] == "g07"
    assert nodes_to_avoid(study.root / "runs" / "one") == ("g07",)


def test_steps_of_a_held_allocation_avoid_and_name_it(study: Study) -> None:
    fail(study, "a", "g07")
    fail(study, "b", "g07")
    said: list[str] = []
    hosts = tuple(f"g{number:02d}" for number in range(1, 20))
    steps = HeldSteps(HeldAllocation("7", hosts), FACTS, JobMonitor(said.append), said.append)
    for _ in range(2):
        assert steps.start(study.allocation(2), SPEC) == "7"
        steps.close()
    (named,) = said
    assert named.startswith("g07 failed twice or more in this study")
    with pytest.raises(ConfigurationError, match=r"job 7 without g07"):
        HeldSteps(HeldAllocation("7", hosts[:18]), FACTS, JobMonitor(said.append), said.append).start(
            study.allocation(2), SPEC
        )


def test_record_without_a_failed_node_has_no_such_field(study: Study) -> None:
    study.submit("a")
    study.nodes.work()
    (text,) = [path.read_text() for path in study.root.glob("runs/one/a/raw/*/attempt.json")]
    assert "failed_nodes" not in text
