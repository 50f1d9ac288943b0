"""Test the tests' own Slurm: it behaves like a rack, and nothing of it outlives the tests."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import slurm_rack
from support.slurm_conf import CONTROLLER, COUNT, NODES
from support.slurm_rack import SlurmRack, commands_with
from support.waiting import wait_for

pytestmark = pytest.mark.slow

STEP = "echo $(hostname) $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"


def listening(folder: Path) -> set[str]:
    """Return ADDRESS:PORT of every listening TCP socket of processes that name `folder`.

    Source: Linux, proc_net_tcp(5): addresses in hexadecimal, in the machine's byte order; state 0A listens.
    """
    sockets = {
        str(link.readlink())  # such as socket:[123]
        for process in commands_with(str(folder))
        for link in Path(f"/proc/{process}/fd").iterdir()
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                host, port = fields[1].split(":")
                parts = bytes.fromhex(host)[::-1] if sys.byteorder == "little" else bytes.fromhex(host)
                found.add(f"{'.'.join(map(str, parts))}:{int(port, 16)}")
    return found


def test_steps_run_on_separate_hosts(slurm: SlurmRack) -> None:
    said = slurm.run("srun", f"--nodes={COUNT}", "--gpus-per-node=4", "sh", "-c", STEP)
    assert sorted(line.split() for line in said.splitlines()) == [[node, node, "0,1,2,3"] for node in NODES]


def test_job_starts_steps_on_its_other_nodes(slurm: SlurmRack, tmp_path: Path) -> None:
    batch = "#!/bin/sh\nsrun -N1 -n1 --overlap -w g02 sh -c 'hostname; getent hosts g01' >$OUT\n"
    (tmp_path / "job").write_text(batch)
    where = f"--export=ALL,OUT={tmp_path}/step"
    slurm.run("sbatch", "-N2", where, f"--output={tmp_path}/out", str(tmp_path / "job"))
    slurm.wait(slurm.all_ended, 20, "ended job")
    assert (tmp_path / "step").read_text().split() == ["g02", slurm.address("g01"), "g01"]


def test_step_gets_ranks_from_pmix(slurm: SlurmRack) -> None:
    said = slurm.run(
        "srun", "-N2", "--ntasks-per-node=2", "--mpi=pmix", "sh", "-c", "echo $PMIX_RANK $(hostname)"
    )
    assert sorted(said.split("\n")) == ["", "0 g01", "1 g01", "2 g02", "3 g02"]


def test_each_daemon_listens_on_its_own_address(slurm: SlurmRack) -> None:
    found = listening(slurm.folder)
    own = {f"{slurm.address(node)}:6818" for node in NODES}
    assert found == own | {f"{slurm.address(CONTROLLER)}:6817"}


def test_killed_node_fails_its_job_and_returns(slurm: SlurmRack) -> None:
    job = slurm.run("sbatch", "--parsable", "--no-requeue", "-N3", "--wrap", "srun sleep 1000").strip()
    slurm.wait(lambda: len(slurm.visitors()) == 3, 20, "steps on three nodes")
    slurm.kill_node("g02")
    assert not slurm.processes("g02")
    slurm.wait(lambda: "JobState=NODE_FAIL" in slurm.run("scontrol", "show", "job", job), 60, "failed job")
    slurm.restore()
    assert slurm.all_idle()


def test_rack_ends_with_its_user(tmp_path: Path) -> None:
    """The process that runs a rack with a job is killed: the rack and the job end too."""
    rack = [sys.executable, slurm_rack.__file__]
    job = ["srun", "-N2", "sh", "-c", f"echo $SLURM_CONF > {tmp_path}/$SLURMD_NODENAME; sleep 1000"]
    with subprocess.Popen([*rack, *job], stderr=subprocess.DEVNULL) as user:
        wait_for(lambda: all((tmp_path / node).exists() for node in NODES[:2]))
        folder = Path((tmp_path / NODES[0]).read_text().strip()).parent
        user.send_signal(signal.SIGKILL)
    wait_for(lambda: not commands_with(str(folder)))
    assert not folder.exists()
