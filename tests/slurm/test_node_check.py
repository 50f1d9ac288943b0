"""Test that one node of real Slurm is asked before a job of many: its Python, and stand-in software."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.argument_checks import NESTED, WORDS
from support.composed import composed
from support.slurm_conf import COUNT
from support.slurm_rack import SlurmRack
from support.slurm_runs import outcomes
from support.slurm_trials import small, stubbed

from tune.backends.slurm.one_node_job import NotRun, OneNodeJob

pytestmark = pytest.mark.slow

IMAGE = ("stack=dynamo_v1", f"+prefill.env.PYTHONPATH={NESTED}")


def run_tune(slurm: SlurmRack, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tune", *slurm.words, *WORDS, *words)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def node_python(folder: Path) -> Path:
    """Make an interpreter that lies elsewhere, as that of the nodes does, with the packages of this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = (folder / "lib").glob("python3*/site-packages")
    paths = [path for path in sys.path if path.endswith("site-packages")] + [str(Path(__file__).parents[2])]
    (site / "packages.pth").write_text("\n".join(paths))
    return folder / "bin" / "python3"


def test_preflight_says_what_the_software_of_a_node_says(slurm: SlurmRack, tmp_path: Path) -> None:
    words = ("action=preflight", *IMAGE, *stubbed(tmp_path / "stub"))
    done = run_tune(slurm, tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the software accepts prefill.yaml, decode.yaml" in done.stderr
    assert (
        "command line of frontend\n  found     not checked, because NoneExists: No module named"
        in done.stdout
    )
    refused = run_tune(slurm, tmp_path, *words, "+decode.extra.moe_confg={backend: X}")
    assert refused.returncode == 1
    assert "error: decode.yaml" in refused.stdout
    assert "Extra inputs are not permitted" in refused.stdout
    assert list((tmp_path / "runs").iterdir()) == []


def test_python_of_the_nodes_that_lacks_tune_is_named(slurm: SlurmRack, tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "bin" / "python3"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    words = ("action=preflight", *IMAGE, *stubbed(tmp_path / "stub"), f"cluster.python={bare}")
    done = run_tune(slurm, tmp_path, *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error: cluster.python" in done.stdout
    assert "No module named" in done.stdout
    assert "action=bootstrap" in done.stdout


def test_trial_runs_with_the_python_of_the_nodes(slurm: SlurmRack, tmp_path: Path) -> None:
    python = node_python(tmp_path / "nodes")
    words = (*small(queries=20, seconds=2), *stubbed(tmp_path / "stub"), f"cluster.python={python}")
    done = run_tune(slurm, tmp_path, *words)
    assert outcomes(tmp_path)[0]["status"] == "measured", done.stderr
    (submitted,) = tmp_path.glob("runs/*/jobs/1/*submission.sh")
    assert f"exec {python}" in submitted.read_text()


def test_node_that_is_never_free_is_not_waited_for(slurm: SlurmRack, tmp_path: Path) -> None:
    slurm.run("sbatch", f"--nodes={COUNT}", "--exclusive", "--wrap", "sleep 1000")
    slurm.wait(lambda: "alloc" in slurm.states().values(), 20, "a full rack")
    settings = composed(*slurm.words)
    said: list[str] = []
    job = OneNodeJob(settings.cluster, settings.hardware, "1:00", said.append, queue_limit_s=0.0)
    with pytest.raises(NotRun, match="no node was free within 0 s: PENDING"):
        job.run("true", tmp_path / "log")
    assert len(slurm.jobs()) == 1
    slurm.run("scancel", *slurm.jobs())
