"""Put before the command of a process what its node asks for.

Source: NVIDIA, MLPerf Inference v6.1, closed/NVIDIA/scaleout/sflow/templates/dynamo_disagg_loadgen.yaml;
srt-slurm, backends/trtllm.py (numactl -m 0,1 on GB200 and GB300).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from tune.manifest.process import PLAN_DIR, RANK_SCRIPT, Process
from tune.spec.cluster import ClusterFacts
from tune.spec.split import WorkerPlacement


def start_delays_s(gap_s: float, placed: Iterable[WorkerPlacement]) -> dict[str, float]:
    """Return by name the delay of each worker's start in seconds: `gap_s` for each before it on its node."""
    started: Counter[int] = Counter()
    delays_s = {}
    for worker in placed:
        delays_s[f"{worker.role}_w{worker.index}"] = started[worker.nodes[0]] * gap_s
        started.update(worker.nodes)
    return delays_s


def launch_command(process: Process, facts: ClusterFacts, delay_s: float) -> Process:
    """Return `process` with the prefix of its role.

    Ranks of an MPI job, and a worker that waits for `delay_s`, start by the plan's rank.sh.
    """
    prefixes = {name: getattr(facts.command_prefix, name) for name in type(facts.command_prefix).model_fields}
    argv = (*prefixes.get(process.role, ()), *process.argv)
    if process.mpi or delay_s > 0:
        argv = ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}", process.name, str(math.ceil(delay_s)), *argv)
    return replace(process, argv=argv)
