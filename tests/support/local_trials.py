"""Describe a small trial with cluster=local on real Dynamo, and list its living processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.fake_deployment import processes_in
from support.waiting import wait_for

Start = Callable[..., "subprocess.Popen[str]"]

SMALL = (
    *("cluster=local", "stack=dynamo_v1_mocker", "hardware.nodes=3", "split.prefill_workers=2"),
    *("split.decode_workers=1", "load.target_qps=10.0", "load.min_duration_s=6.0", "load.min_queries=60"),
    *(
        "load.concatenate_permutation=false",
        "load.dataset.inputs.kind=fixed",
        "cluster.deadlines.quiet_s=30.0",
    ),
    *("load.dataset.inputs.mean_tokens=400.0", "load.dataset.inputs.sd_tokens=0.0"),
    *("load.dataset.outputs.mean_tokens=100.0", "load.dataset.outputs.cap_frac=0.0"),
)


def alive(folder: Path) -> dict[int, str]:
    """Return the command lines of the processes that were started in `folder`, by id."""
    return processes_in(folder)


def require_ended(folder: Path) -> None:
    """Fail where a process of `folder` does not end by itself; it is killed then.

    A command may return before the jobs that it left to Slurm have ended: their processes are waited for.
    """
    try:
        wait_for(lambda: not alive(folder))
    finally:
        left = alive(folder)
        for process in left:
            os.kill(process, signal.SIGKILL)
        assert not left


def printed(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=300)[0]
