"""Render the process of a TensorRT-LLM worker in Dynamo.

In dynamo_v0 the worker that answers first relays the other's stream, and a flag says which one that is; in
dynamo_v1 the frontend routes, and there is no such flag. A worker without a mode is an aggregated one.
Source: Dynamo, components/backends/trtllm/multinode (f9b1757, 4593479); components/src/dynamo/trtllm/
backend_args.py (1.x).
"""

from __future__ import annotations

from tune.engines.dynamo.dynamo_environment import dynamo_environment, opens_system_port, system_port
from tune.engines.dynamo.dynamo_frontends import publishes_kv_events
from tune.manifest.process import PLAN_DIR, Port, Process, dynamo_program, log_path
from tune.spec.cluster import ClusterFacts
from tune.spec.split import ROLES, WorkerPlacement
from tune.spec.trial import TrialSpec

RANK_LAUNCHER = "trtllm-llmapi-launch"
"""Program that starts the ranks of a worker's MPI job. Source: TensorRT-LLM, tensorrt_llm/llmapi."""

_FIRST_PROXY_PORT = 10012
"""Port of the proxy of a worker on GPU 0. Workers that share a node have one each, by their first GPU.
Source: NVIDIA, MLPerf Inference v6.1, dynamo_disagg_loadgen.yaml. TensorRT-LLM reads it since pull
request 8922 (2025-11)."""


PORT_CHOICE_S = 60.0
"""Seconds in which trtllm-llmapi-launch of 2025 has taken the port that it found free: its leader listens
once tensorrt_llm is imported. Later versions are given an address, or make one that nobody shares. Source:
TensorRT-LLM, tensorrt_llm/llmapi/trtllm-llmapi-launch (mid 2025); pull request 8922, which was in review on
2025-11-07, the day of 1.2.0rc2, the version of Dynamo 0.7.0. The time is an assumption."""


def trtllm_environment(spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
    """Return the variables that frontend and workers share."""
    env = dynamo_environment(spec, facts)
    if spec.stack.dynamo == "v0":
        env |= {
            "DISAGGREGATION_STRATEGY": spec.split.disaggregation_strategy,
            # srun sets nothing for the KV transceiver; start_trtllm_worker.sh chooses UCX.
            "TRTLLM_USE_UCX_KVCACHE": "1",
        }
    return env


def trtllm_worker(spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
    """Return one worker, an MPI job with a rank on each of its GPUs."""
    name, node = f"{placed.role}_w{placed.index}", placed.nodes[0]
    config = f"{PLAN_DIR}/{placed.role}.yaml"
    mode = ("--disaggregation-mode", placed.role) if placed.role in ROLES else ()
    env = trtllm_environment(spec, facts) | ({"DISAGGREGATION_MODE": placed.role} if mode else {})
    env |= {"ENGINE_CONFIG": config}
    visible = placed.gpus_on(node)
    if len(visible) < spec.hardware.gpus_per_node:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in visible)
        env["TLLM_SPAWN_PROXY_PROCESS_IPC_ADDR"] = f"tcp://127.0.0.1:{_FIRST_PROXY_PORT + visible[0]}"
    argv: tuple[str, ...] = (
        *(dynamo_program(facts, program) for program in (RANK_LAUNCHER, "python3")),
        *("-m", "dynamo.trtllm"),
        *("--model-path", facts.model_path, "--served-model-name", spec.model.served_name),
        *("--extra-engine-args", config, *mode),
    )
    if mode and spec.stack.dynamo == "v0":
        argv += ("--disaggregation-strategy", spec.split.disaggregation_strategy)
    if publishes_kv_events(spec):
        argv += ("--publish-events-and-metrics",)
    port = system_port(spec, placed)
    listens = () if port is None else (Port(port, "stack.system_port"),)
    if port is not None:
        env |= opens_system_port(spec.stack, port)
    return Process(
        name, placed.role, node, placed.gpus, env, argv, log_path(name), listens, metrics_port=port, mpi=True
    )
