"""Read what the real sacct reports about jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.slurm_conf import URGENT
from support.slurm_rack import SlurmRack

from tune.backends.slurm.commands import SlurmUnavailable, accounted_jobs, last_known, show_job
from tune.backends.slurm.job_states import GONE, JobInfo

pytestmark = pytest.mark.slow

JOBS = {
    "completed": ("-N2", "--comment=tune:/a b|c", "--wrap", "srun sleep 1"),
    "failed": ("-N1", "--wrap", "exit 3"),
    "killed": ("-N1", "--wrap", "kill -9 $$"),
    "too long": ("-N1", "--time=1", "--wrap", "sleep 1000"),
    "cancelled": ("-N2", "--nodelist=g[05-06]", "--wrap", "srun sleep 1000"),
    "cancelled in the queue": ("-N1", "--begin=now+1hour", "--wrap", "true"),
    "waits": ("-N1", "--begin=now+1hour", "--wrap", "true"),
    "preempted": ("-N1", "--nodelist=g09", "--exclusive", "--wrap", "trap '' TERM; sleep 1000; sleep 1000"),
    "loses a node": ("-N2", "--nodelist=g[17-18]", "--exclusive", "--wrap", "srun sleep 1000"),
}
MEANT = {
    "completed": ("COMPLETED", "0:0", 2),
    "failed": ("FAILED", "3:0", 1),
    "killed": ("FAILED", "0:9", 1),
    "too long": ("TIMEOUT", "0:0", 1),
    "cancelled": ("CANCELLED", "0:0", 2),
    "cancelled in the queue": ("CANCELLED", "0:0", 0),
    "preempted": ("PREEMPTED", "0:0", 1),
    "loses a node": ("NODE_FAIL", "0:0", 2),
}
"""State, exit code and number of nodes by kind of job."""


def test_every_end_of_a_job_is_read_from_accounting(
    accounted_nodes: SlurmRack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is read after the controller has forgotten the job, and not without accounting."""
    rack, began_at = accounted_nodes, datetime.now(UTC)
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # Slurm prints local times
    common = ("sbatch", "--parsable", "--no-requeue", f"--output={tmp_path}/%j.out")
    ids = {name: rack.run(*common, *words).strip() for name, words in JOBS.items()}

    def known() -> dict[str, JobInfo]:
        found = accounted_jobs(dict.fromkeys(ids.values(), began_at))
        return {name: found[job_id] for name, job_id in ids.items() if job_id in found}

    began = ("cancelled", "preempted", "loses a node")
    rack.wait(lambda: all((show_job(ids[name]).occupied_s or 0) >= 1 for name in began), 20, "running jobs")
    rack.wait(lambda: known()["preempted"].phase == "running", 20, "job that runs in the accounting too")
    rack.run("scancel", ids["cancelled"], ids["cancelled in the queue"])
    rack.run(*common, f"--partition={URGENT}", "--nodelist=g09", "--exclusive", "--wrap", "true")
    rack.kill_node("g18")
    rack.wait(lambda: {n for n, i in known().items() if i.phase == "ended"} == set(MEANT), 150, "ended jobs")
    rack.wait(lambda: show_job(ids["too long"]).state == GONE, 90, "controller that has forgotten")
    for name, (state, exit_code, nodes) in MEANT.items():
        info = last_known(ids[name], began_at)
        assert info == known()[name]
        assert (info.state, info.exit_code) == (state, exit_code), name
        hosts = rack.run("scontrol", "show", "hostnames", info.nodes).split() if info.nodes else []
        assert len(hosts) == nodes
        assert info.submitted_at is not None
        assert info.ended_at is not None
        assert began_at - timedelta(seconds=1) <= info.submitted_at <= info.ended_at <= datetime.now(UTC)
        assert (info.occupied_s or 0.0) >= (60.0 if name == "too long" else 1.0 if name in began else 0.0)
    assert (last_known(ids["waits"], began_at).phase, known()["waits"].phase) == ("waiting", "waiting")
    assert last_known("999", began_at).state == GONE
    assert last_known(ids["failed"], datetime.now(UTC) + timedelta(hours=1)).state == GONE, "an older job"

    rack.stop_accounting()
    with pytest.raises(SlurmUnavailable, match="sacct ended with exit code 1"):
        accounted_jobs({ids["failed"]: began_at})
    assert last_known(ids["failed"], began_at).state == GONE
