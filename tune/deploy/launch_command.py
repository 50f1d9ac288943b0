"""Put before the command of a process what its node asks for.

Source: NVIDIA, MLPerf Inference v6.1, closed/NVIDIA/scaleout/sflow/templates/dynamo_disagg_loadgen.yaml;
srt-slurm, backends/trtllm.py (numactl -m 0,1 on GB200 and GB300).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from tune.manifest.process import PLAN_DIR, RANK_SCRIPT, Process
from tune.spec.cluster import ClusterFacts
from tune.spec.split import WorkerPlacement
from tune.spec.trial import TrialSpec

PORT_CHOICE_S = 60.0
"""Seconds in which trtllm-llmapi-launch of 2025 has taken the port that it found free: its leader listens
once tensorrt_llm is imported. Later versions are given an address, or make one that nobody shares. Source:
TensorRT-LLM, tensorrt_llm/llmapi/trtllm-llmapi-launch (mid 2025); pull request 8922 (2025-11). The time is an
assumption."""


def start_delays_s(
    spec: TrialSpec, facts: ClusterFacts, placed: Iterable[WorkerPlacement]
) -> dict[str, float]:
    """Return by name how long after the others a worker starts that shares its node, in seconds."""
    step_s = max(facts.load_stagger_s, PORT_CHOICE_S if spec.stack.dynamo == "v0" else 0.0)
    started: Counter[int] = Counter()
    delays_s = {}
    for worker in placed:
        delays_s[f"{worker.role}_w{worker.index}"] = started[worker.nodes[0]] * step_s
        started.update(worker.nodes)
    return delays_s


def launch_command(process: Process, facts: ClusterFacts, delay_s: float) -> Process:
    """Return `process` with the prefix of its role; ranks of a worker start by the plan's rank.sh."""
    prefixes = {name: getattr(facts.command_prefix, name) for name in type(facts.command_prefix).model_fields}
    argv = (*prefixes.get(process.role, ()), *process.argv)
    if process.mpi:
        argv = ("bash", f"{PLAN_DIR}/{RANK_SCRIPT}", process.name, f"{delay_s:g}", *argv)
    return replace(process, argv=argv)
