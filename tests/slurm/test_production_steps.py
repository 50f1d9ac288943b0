"""Run worker steps of production plans on real Slurm: each rank runs where the plan puts it.

The engines are fakes that print what they were started with; Slurm, PMIx, the orchestrator, the plan of
stack=dynamo_v0 and dynamo_v1, LoadGen and its client are real. Jobs are submitted by hand, by job.sbatch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.slurm_conf import NODES
from support.slurm_rack import SlurmRack
from support.slurm_trials import small, stubbed

from tune.manifest.process import Process
from tune.manifest.process_manifest import ProcessManifest, read_manifest
from tune.records.folders import read_attempt

pytestmark = pytest.mark.slow

TP8_OVER_TWO_NODES = (
    *("prefill.tensor_parallel_size=4", "decode.tensor_parallel_size=8", "hardware.nodes=3"),
    *("split.prefill_workers=1", "split.decode_workers=1"),
)
TWO_TP2_ON_ONE_NODE = (
    *("prefill.tensor_parallel_size=2", "decode.tensor_parallel_size=4", "hardware.nodes=2"),
    *("split.prefill_workers=2", "split.decode_workers=1"),
)


def by_hand(
    slurm: SlurmRack, folder: Path, *words: str, shell: Mapping[str, str] = {}
) -> tuple[ProcessManifest, Path]:
    """Render a plan, submit its job.sbatch and wait; return the plan and the attempt's folder.

    `shell` holds further variables of the shell that submits.
    """
    command = (sys.executable, "-m", "tune", "action=plan", *slurm.words, *words)
    said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    plan = folder / said.splitlines()[-1].split()[-1]
    services = folder / "stub" / "services"
    environment = (
        dict(os.environ)
        | dict(shell)
        | {
            "PATH": f"{services}:{os.environ['PATH']}",
            "TUNE_PYTHON": sys.executable,
        }
    )
    submit = ("sbatch", "--parsable", f"--output={folder}/job.out", "job.sbatch")
    job = subprocess.run(
        submit, cwd=plan, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    slurm.wait(slurm.all_ended, 180, "ended job")
    return read_manifest(plan), plan.parent / "raw" / job.strip()


def ranks(attempt: Path, process: Process) -> dict[int, dict[str, str | None]]:
    """Return what each rank of a worker's step printed about its environment."""
    log = attempt / process.log.replace("${NODE}", NODES[process.node_index])
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return {int(rank["SLURM_PROCID"]): rank for rank in found}


@pytest.mark.parametrize("stack", ["dynamo_v0", "dynamo_v1"])
@pytest.mark.parametrize("shape", [TP8_OVER_TWO_NODES, TWO_TP2_ON_ONE_NODE], ids=["TP4 and TP8", "2 x TP2"])
def test_each_rank_runs_on_its_planned_node_and_gpu(
    stack: str, shape: tuple[str, ...], slurm: SlurmRack, tmp_path: Path
) -> None:
    words = (*small(), f"stack={stack}", *shape, *stubbed(tmp_path / "stub"))
    launch, attempt = by_hand(slurm, tmp_path, *words)
    record = read_attempt(attempt)
    assert record is not None
    assert record.error is None
    assert (attempt / "nodes").read_text().split() == list(NODES[: launch.nodes])
    workers = [process for process in launch.processes if process.gpus]
    assert workers
    for process in workers:
        said = ranks(attempt, process)
        assert sorted(said) == list(range(len(process.gpus))), process.name
        for rank, given in said.items():
            visible = (given["CUDA_VISIBLE_DEVICES"] or "").split(",")
            ran = (
                NODES.index(given["SLURMD_NODENAME"] or ""),
                int(visible[int(given["SLURM_LOCALID"] or 0)]),
            )
            assert ran == process.gpus[rank], f"{process.name} rank {rank}: {given}"
            assert given["PMIX_RANK"] == str(rank)
            assert given["SLURM_STEP_NUM_TASKS"] == str(len(process.gpus))
            assert given["DISAGGREGATION_MODE"] == process.role
            assert given["HEAD_NODE_IP"] == slurm.address(NODES[0])


def test_named_variables_reach_the_ranks_and_no_others(slurm: SlurmRack, tmp_path: Path) -> None:
    """Every variable of the shell whose value is "shell" is looked for in every rank."""
    names = ("HF_TOKEN", "UCX_TLS", "NCCL_DEBUG", "SLURM_CPU_BIND", "ENROOT_ALLOW_DEV", "LD_LIBRARY_PATH")
    further = ("OMPI_MCA_btl", "PYTORCH_CUDA_ALLOC_CONF", "TRTLLM_ENABLE_PDL", "ANYTHING")
    shell = dict.fromkeys((*names, *further), "shell")
    named = ("+prefill.env={UCX_TLS: rc, HF_TOKEN: null}", "+cluster.srun_env.ENROOT_ALLOW_DEV=yes")
    words = (*small(), "stack=dynamo_v1", *TWO_TP2_ON_ONE_NODE, *stubbed(tmp_path / "stub"), *named)
    launch, attempt = by_hand(slurm, tmp_path, *words, shell=shell)
    for process in launch.processes:
        if process.gpus:
            of_prefill = process.role == "prefill"
            for given in ranks(attempt, process).values():
                assert given["UCX_TLS"] == ("rc" if of_prefill else None)
                assert given["HF_TOKEN"] == ("shell" if of_prefill else None)
                assert given["FROM_SHELL"] == ("HF_TOKEN" if of_prefill else "")
                assert given["ENROOT_ALLOW_DEV"] == "yes"
