"""Run an exported job on real Slurm, without tune: its engines, services and load client are fakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.slurm_conf import NODES
from support.slurm_rack import SlurmRack
from support.slurm_trials import small, stubbed

from tune.cli.trial_export import exported_trial
from tune.config import compose_overrides
from tune.spec.settings import Settings

pytestmark = pytest.mark.slow

CLIENT = """#!{python}
import json, pathlib, sys, urllib.request
out = pathlib.Path(sys.argv[-1])
out.mkdir()
urls = [value for name, value in zip(sys.argv, sys.argv[1:]) if name == "--url"]
served = [json.load(urllib.request.urlopen(url + "/v1/models"))["data"][0]["id"] for url in urls]
(out / "asked.json").write_text(json.dumps({{"arguments": sys.argv[1:], "served": served}}))
"""


def ran(settings: Settings, rate_qps: float | None, slurm: SlurmRack, folder: Path) -> tuple[Path, list[str]]:
    """Run a trial as an exported job; return the folder of its run, and the arguments of AIPerf."""
    job = folder / "job"
    exported = exported_trial(settings.trial_spec, settings.cluster, "sbatch", rate_qps)
    for name, content in exported.recipe.files.items():
        (job / name).parent.mkdir(parents=True, exist_ok=True)
        (job / name).write_bytes(content.encode() if isinstance(content, str) else content)
    client = folder / "stub" / "services" / "aiperf"
    client.write_text(CLIENT.format(python=sys.executable))
    client.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PATH": f"{client.parent}:{os.environ['PATH']}", "HF_TOKEN": "shell", "SECRET": "shell"}
    submit = ("sbatch", "--parsable", f"--output={folder}/job.out", "job.sbatch")
    subprocess.run([submit[0], "--test-only", submit[-1]], cwd=job, env=environment, check=True)
    number = subprocess.run(
        submit, cwd=job, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    slurm.wait(slurm.all_ended, 120, "ended job")
    said, run = (folder / "job.out").read_text(), job / f"run-{number}"
    assert "ready: " in said, said
    assert "has ended" not in said
    asked = json.loads((run / "client" / "asked.json").read_text())
    assert asked["served"] == [settings.model.served_name] * settings.split.frontends
    return run, asked["arguments"]


def test_an_exported_job_runs_without_tune(slurm: SlurmRack, tmp_path: Path) -> None:
    stubs = stubbed(tmp_path / "stub")
    shape = ("hardware.nodes=3", "decode.tensor_parallel_size=8", "split.prefill_workers=1")
    words = (*small(), "stack=dynamo_v1", *shape, *stubs, *slurm.words, "+decode.env.UCX_TLS=rc")
    settings = compose_overrides([*words, "+prefill.env.HF_TOKEN=null", "split.frontends=2"]).settings
    run, arguments = ran(settings, 12.5, slurm, tmp_path)
    assert arguments[arguments.index("--request-rate") + 1] == "12.5"
    logs = {path.name for path in (run / "logs").iterdir()}
    names = ("etcd", "frontend", "prefill_w0", "client")
    assert logs == {f"{NODES[0]}_{name}.out" for name in names} | {
        f"{NODES[1]}_decode_w0.out", f"{NODES[1]}_frontend_1.out",
    }  # fmt: skip
    ranks = [
        json.loads(line) for line in (run / "logs" / f"{NODES[1]}_decode_w0.out").open() if line[0] == "{"
    ]
    assert sorted(int(rank["SLURM_PROCID"]) for rank in ranks) == list(range(8))
    assert {rank["SLURMD_NODENAME"] for rank in ranks} == set(NODES[1:3])
    assert {rank["UCX_TLS"] for rank in ranks} == {"rc"}
    assert {rank["FROM_SHELL"] for rank in ranks} == {""}, "nothing of the shell but what is named"
    prefill = json.loads((run / "logs" / f"{NODES[0]}_prefill_w0.out").read_text().splitlines()[0])
    assert prefill["FROM_SHELL"] == "HF_TOKEN"
    assert not (run / "scratch").exists()


def test_an_exported_job_of_aggregated_workers_sends_for_users(slurm: SlurmRack, tmp_path: Path) -> None:
    stubs = stubbed(tmp_path / "stub")
    shape = ("split=aggregated", "split.aggregated_workers=2", "aggregated.tensor_parallel_size=2")
    loop = ("load.mode=concurrency", "load.concurrency=8", "load.target_qps=null")
    words = (*small(nodes=1, prefill=0, decode=0), "stack=dynamo_v1", *shape, *loop, *stubs, *slurm.words)
    run, arguments = ran(compose_overrides(words).settings, None, slurm, tmp_path)
    assert "--request-rate" not in arguments
    assert arguments[arguments.index("--concurrency") + 1] == "8"
    logs = {path.name for path in (run / "logs").iterdir()}
    names = ("etcd", "frontend", "aggregated_w0", "aggregated_w1", "client")
    assert logs == {f"{NODES[0]}_{name}.out" for name in names}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this machine")
def test_the_scripts_of_a_job_pass_shellcheck(tmp_path: Path) -> None:
    settings = compose_overrides(
        ["stack=dynamo_v1", "split.frontends=2", "cluster.container_image=a/b"]
    ).settings
    exported = exported_trial(settings.trial_spec, settings.cluster, "sbatch", 12.5)
    scripts = [name for name in exported.recipe.files if name.endswith((".sh", ".sbatch"))]
    for name in scripts:
        (tmp_path / name).write_text(str(exported.recipe.files[name]))
    assert len(scripts) == 3
    subprocess.run(["shellcheck", *scripts], cwd=tmp_path, check=True)
