from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.manifest.process import Process
from tune.orchestrator.launcher import ResolvedProcess
from tune.orchestrator.slurm.job import SlurmJob
from tune.orchestrator.slurm.srun import SrunLauncher, srun_environment, step_command

CONTAINER = ("--container-image=/a b.sqsh", "--container-mounts=/p:/p")


def resolved(
    process: Process,
    gpus_per_node: int | None = None,
    container: tuple[str, ...] = (),
    srun_env: Mapping[str, str | None] = {},
) -> ResolvedProcess:
    return ResolvedProcess(
        process=process,
        hosts=tuple(f"gb{node:02d}" for node in process.nodes),
        argv=process.argv,
        env=process.env,
        log=Path("log"),
        container=container,
        gpus_per_node=gpus_per_node,
        srun_env=srun_env,
    )


def worker(nodes: int, gpus: int, *, mpi: bool = True, **env: str) -> Process:
    gpu_positions = tuple((node, gpu) for node in range(3, 3 + nodes) for gpu in range(gpus))
    argv = ("trtllm-llmapi-launch", "a b")
    return Process("decode_w0", "decode", 3, gpu_positions, env, argv, "log", mpi=mpi)


def options(command: list[str]) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in command if word.startswith("--"))


def test_sample_of_the_gpus_runs_on_the_nodes_themselves() -> None:
    """An image would have to be unpacked for a question that takes a second."""
    sample = replace(worker(2, 1, mpi=False), role="sample")
    command = step_command(resolved(sample, gpus_per_node=4, container=CONTAINER))
    assert not [word for word in command if word.startswith("--container")]
    assert options(command)["--gpus-per-node"] == "4"


@given(nodes=st.integers(1, 4), gpus=st.integers(1, 8), sets_gpus_per_node=st.booleans())
def test_worker_has_one_task_per_gpu_in_rank_order(nodes: int, gpus: int, sets_gpus_per_node: bool) -> None:
    command = step_command(resolved(worker(nodes, gpus), gpus_per_node=8 if sets_gpus_per_node else None))
    options_given = options(command)
    assert command[0] == "srun"
    assert int(options_given["--nodes"]) == nodes
    assert options_given["--nodelist"].split(",") == [f"gb{node:02d}" for node in range(3, 3 + nodes)]
    assert int(options_given["--ntasks"]) == int(options_given["--ntasks-per-node"]) * nodes == nodes * gpus
    assert (options_given["--mpi"], options_given["--distribution"]) == ("pmix", "block")
    assert options_given.get("--gpus-per-node") == ("8" if sets_gpus_per_node else None)
    assert command[-2:] == ["trtllm-llmapi-launch", "a b"]
    assert "--no-kill" not in options_given


def test_a_worker_without_mpi_is_one_task_a_node() -> None:
    command = step_command(resolved(worker(2, 4, mpi=False), gpus_per_node=4))
    said = options(command)
    assert (said["--nodes"], said["--ntasks"], said["--ntasks-per-node"]) == ("2", "2", "1")
    assert (said["--mpi"], said["--gpus-per-node"]) == ("none", "4")


def test_variables_are_set_inside_the_step() -> None:
    """Slurm sets CUDA_VISIBLE_DEVICES in a step, and an image its own variables."""
    command = step_command(resolved(worker(1, 2, CUDA_VISIBLE_DEVICES="2,3"), container=CONTAINER))
    assert command[-4:] == ["env", "CUDA_VISIBLE_DEVICES=2,3", "trtllm-llmapi-launch", "a b"]
    assert command.index(CONTAINER[1]) < command.index("env")


def test_services_have_one_task_and_the_client_no_image() -> None:
    for role in ("etcd", "client"):
        process = Process(role, "etcd" if role == "etcd" else "client", 0, (), {}, ("run",), "log")
        command = step_command(resolved(process, gpus_per_node=4, container=CONTAINER))
        options_given = options(command)
        assert (options_given["--ntasks"], options_given["--mpi"]) == ("1", "none")
        assert "--gpus-per-node" not in options_given
        assert (CONTAINER[0] in command) == (role == "etcd")
        assert command[-1] == "run"
        assert "env" not in command


NAMES = st.sampled_from(["SLURM_", "SRUN_", "SBATCH_", "PMI_", "PMIX_", "HOME", "NCCL_", "LD_"])

JOB = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "SLURM_JOB_NODELIST": "gb[1-2]"}


@given(st.dictionaries(st.tuples(NAMES, st.text("ABC_", max_size=6)).map("".join), st.just("x")))
def test_a_step_inherits_the_job_and_nothing_of_the_shell(environment: dict[str, str]) -> None:
    shell = environment | {"SLURM_NTASKS": "1", "SLURM_CPU_BIND": "x", "PMI_RANK": "0", "PATH": "/bin"}
    found = srun_environment(shell | JOB, resolved(worker(1, 1)))
    assert found == JOB | {"PATH": "/bin"} | ({"HOME": "x"} if "HOME" in environment else {})


def test_named_variables_reach_srun() -> None:
    shell = JOB | {"HF_TOKEN": "t", "ENROOT_ALLOW_DEV": "no", "UCX_TLS": "tcp", "ENROOT_CACHE_PATH": "/c"}
    process = replace(worker(1, 1), inherits=("HF_TOKEN", "NOT_SET"))
    srun_env = {"ENROOT_ALLOW_DEV": "yes", "ENROOT_CACHE_PATH": None}
    found = srun_environment(shell, resolved(process, srun_env=srun_env))
    assert found == JOB | {"HF_TOKEN": "t", "ENROOT_ALLOW_DEV": "yes", "ENROOT_CACHE_PATH": "/c"}


def test_node_that_srun_blames_is_found_in_its_words(tmp_path: Path) -> None:
    launcher = SrunLauncher(SlurmJob("7", "g[01-03]"), tmp_path, tmp_path)
    words = (
        "decode_w0 ended with exit code 1; the last lines of its log:\n"
        "  | srun: error: Task launch for StepId=7.3 failed on node g03: Communication connection failure\n"
        "  | srun: error: Node failure on g02\n"
        "  | srun: error: g01: task 0: Exited with exit code 1\n"
        "  | node g01 says: failed on node g01"
    )
    assert launcher.failed_nodes(words, revoked=True) == ("g03", "g02")
    assert launcher.failed_nodes("etcd does not listen", revoked=True) == ()


UNREACHED = """\
srun: error: Task launch for StepId=1.0 failed on node g02: Communication connection failure
srun: error: Task launch for StepId=1.0 failed on node g03: Job credential expired
srun: error: Application launch failed: Communication connection failure
srun: Job step aborted
"""


@pytest.mark.slow
@pytest.mark.parametrize("waits", [False, True])
def test_a_node_that_srun_does_not_reach_is_named(
    waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """srun may wait for the node until it is stopped, and has said so by then."""
    srun = tmp_path / "srun"
    said = f"cat >&2 <<END\n{UNREACHED}END\necho $* >{tmp_path}/asked\n"
    srun.write_text(f"#!/bin/sh\n{said}{'exec sleep 900' if waits else 'exit 1'}\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("tune.orchestrator.slurm.job._ALL_NODES_ANSWER_S", 2.0)
    launcher = SrunLauncher(SlurmJob("7", "g[01-03]"), tmp_path, tmp_path)
    assert launcher.failed_nodes("decode_w0 ended with exit code 1", revoked=False) == ("g02",)
    assert "--nodelist=g[01-03] true" in (tmp_path / "asked").read_text()
    (tmp_path / "asked").unlink()
    assert launcher.failed_nodes("decode_w0 ended with exit code 1", revoked=True) == ()
    assert not (tmp_path / "asked").exists(), "little time is left"


def test_a_frontend_runs_without_the_variables_of_its_step() -> None:
    frontend = Process("frontend", "frontend", 0, (), {"DYN_LOG": "info"}, ("env",), "log")
    command = step_command(resolved(frontend))
    begin = command.index("env")
    environment = {
        "PATH": "/usr/bin:/bin",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURMD_NODENAME": "g01",
    }
    seen = subprocess.run(command[begin:], env=environment, check=True, capture_output=True, text=True).stdout
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert {"DYN_LOG", "SLURMD_NODENAME"} <= names
    assert not {name for name in names if name.startswith("SLURM_")}
    bare = subprocess.run(
        command[begin:], env={"PATH": "/usr/bin:/bin"}, check=True, capture_output=True, text=True
    )
    assert "DYN_LOG=info" in bare.stdout, "a machine without Slurm"


def test_options_of_an_image_reach_the_steps_in_it() -> None:
    client = Process("client", "client", 0, (), {}, ("python3",), "log")
    for process, inside in ((worker(1, 4), True), (client, False)):
        step = replace(
            resolved(process, container=CONTAINER),
            srun_options=("--cpu-bind=verbose,none", "--container-writable"),
            mpi="pmix_v4",
        )
        command = step_command(step)
        assert "--cpu-bind=verbose,none" in command
        assert ("--container-writable" in command) is inside
        assert (f"--mpi={'pmix_v4' if inside else 'none'}") in command
