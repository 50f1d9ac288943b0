"""Render the processes of Dynamo 1.6 with mock engines in place of TensorRT-LLM.

Discovery in etcd or files, requests over TCP or NATS, events over NATS: ZeroMQ's publishers would listen on
every interface (Dynamo, lib/runtime/src/transports/event_plane: tcp://0.0.0.0:0), these servers all listen on
the address of their node alone, which is 127.0.0.1 where all nodes are this machine.
Source of flags and variables: Dynamo 1.6.1, components/src/dynamo/mocker/args.py, dynamo.frontend --help,
lib/runtime/src/config/environment_names.rs.
"""

from __future__ import annotations

from collections.abc import Mapping

from tune.engines.dynamo.dynamo_environment import (
    QUIET_LOGS,
    discovery_address,
    nats_url,
    planes,
    system_port,
)
from tune.engines.dynamo.dynamo_frontends import dynamo_frontends
from tune.errors import ConfigurationError
from tune.manifest.process import (
    NODE_IP,
    PLAN_DIR,
    SCRATCH_DIR,
    START_ETCD,
    Port,
    Process,
    dynamo_program,
    log_path,
)
from tune.spec.cluster import Calibration, ClusterFacts
from tune.spec.engine import BatchingPolicy
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import HEAD_NODE, Role, WorkerPlacement
from tune.spec.trial import TrialSpec

_ENGINE_TYPE: dict[BatchingPolicy, str] = {
    "reserve_answers": "trtllm",
    "evict_newest": "vllm",
    "whole_batches": "vllm",
}
"""The mock engine's scheduler for a batching policy: `trtllm` reserves blocks for the whole answer, `vllm`
takes them as they are needed and evicts the newest sequence. A rule refuses whole batches."""


_MODE: Mapping[Role, str] = {"prefill": "prefill", "decode": "decode", "aggregated": "agg"}
"""The mock engine's names of what its workers do."""


def step_times_file(role: Role) -> str:
    """Return the name, among a plan's files, of the table that times the steps of a pool's mock engines."""
    return f"{role}_step_times.npz"


def mock_env(spec: TrialSpec) -> dict[str, str]:
    """Return the variables that frontend and mock engines share.

    What they leave in HOME (model cards) and TMPDIR is removed.
    """
    return {
        **discovery_address(spec.stack),
        "NATS_SERVER": nats_url(spec.stack),
        **planes(spec.stack),
        "DYN_EVENT_PLANE": "nats",
        "DYN_TCP_RPC_HOST": NODE_IP,
        "DYN_TCP_RESPONSE_STREAM_HOST": NODE_IP,
        "DYN_SYSTEM_HOST": NODE_IP,
        "DYN_LOG": QUIET_LOGS,
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
        "HOME": SCRATCH_DIR,
        "TMPDIR": SCRATCH_DIR,
    }


def mock_services(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """Return NATS, and etcd unless processes find each other by files, on the head node."""
    stack = spec.stack
    client, peer = (f"http://{NODE_IP}:{port}" for port in (stack.etcd_client_port, stack.etcd_peer_port))
    etcd = (
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}"),
    )
    listens = (
        Port(stack.etcd_client_port, "stack.etcd_client_port"),
        Port(stack.etcd_peer_port, "stack.etcd_peer_port"),
    )
    started = ("bash", "-c", START_ETCD, dynamo_program(facts, "etcd"), *etcd)
    nats = (dynamo_program(facts, "nats-server"), "-a", NODE_IP, "-p", str(stack.nats_port))
    nats_port = Port(stack.nats_port, "stack.nats_port")
    nats_server = Process("nats", "nats", HEAD_NODE, (), {}, nats, log_path("nats"), (nats_port,))
    if stack.shares_files:
        return (nats_server,)
    return nats_server, Process("etcd", "etcd", HEAD_NODE, (), {}, started, log_path("etcd"), listens)


def mock_frontends(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """Return Dynamo's OpenAI endpoints, each on the address of its node alone."""
    return dynamo_frontends(spec, facts, mock_env(spec), ("--http-host", NODE_IP))


def mock_worker(spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement, cache_tokens: int) -> Process:
    """Return one mock engine, a process on the node index of the worker that it stands for.

    `cache_tokens` is the KV cache of the worker. Raises ConfigurationError where the stack has no system
    port, or as `mock_calibration` does.
    """
    port = system_port(spec, placed)
    if port is None:
        raise ConfigurationError(
            "stack.system_port: found null, expected the first of one free port a worker."
        )
    node, name = placed.nodes[0], f"{placed.role}_w{placed.index}"
    env = mock_env(spec) | {"DYN_SYSTEM_PORT": str(port)}
    argv = (
        *(dynamo_program(facts, "python3"), "-m", "dynamo.mocker"),
        *("--disaggregation-mode", _MODE[placed.role]),
        *("--model-path", facts.model_path, "--model-name", spec.model.served_name),
        *_engine_flags(spec, mock_calibration(facts), placed.role, cache_tokens),
    )
    listens = (Port(port, "stack.system_port"),)
    return Process(name, placed.role, node, (), env, argv, log_path(name), listens, metrics_port=port)


def mock_calibration(facts: ClusterFacts) -> Calibration:
    """Return the parameters that time mock engines.

    Raises ConfigurationError where the backend has none, or parameters that slow one worker alone.
    """
    calibration = facts.calibration
    if calibration is None:
        raise ConfigurationError(
            f"cluster.calibration: found none in cluster={facts.kind}, and mock engines take their step "
            "times from it. Use cluster=local, or another stack."
        )
    for name in ("last_decode_worker_scale", "head_node_scale"):
        if getattr(calibration, name) != 1:
            raise ConfigurationError(
                f"cluster.calibration.{name}: found {getattr(calibration, name):g}, expected 1 with stack "
                "dynamo_v1_mocker: the mock engines of a pool share one table of step times."
            )
    for name in ("prefill_steps", "decode_steps", "step_source"):
        if getattr(calibration, name):
            raise ConfigurationError(
                f"cluster.calibration.{name}: found a table, expected null with stack dynamo_v1_mocker: mock "
                "engines take their step times from the roofline."
            )
    return calibration


def _engine_flags(
    spec: TrialSpec, calibration: Calibration, role: Role, cache_tokens: int
) -> tuple[str, ...]:
    """Return the engine's settings as flags of the mock engine. mock_rules.py checks what it has no flag for.

    A decode engine's budget of a step is its whole cache: a mock engine charges prompts that arrive with
    their KV cache to that budget, though nothing is computed, and a smaller one would let them wait.
    """
    engine = spec.engine(role)
    sequences, step_tokens = engine.max_sequences, engine.token_budget
    chunked, block = engine.chunks_prompts, engine.kv_block_tokens
    if role == "decode":
        sequences, step_tokens, chunked = min(sequences, step_tokens), cache_tokens, True
    return (
        *("--engine-type", _ENGINE_TYPE[engine.batching]),
        *("--num-gpu-blocks-override", str(cache_tokens // block)),
        *("--block-size", str(block)),
        *("--max-model-len", str(engine.max_sequence_tokens), "--max-num-seqs", str(sequences)),
        *("--max-num-batched-tokens", str(step_tokens)),
        "--enable-prefix-caching" if engine.reuses_kv_blocks else "--no-enable-prefix-caching",
        "--enable-chunked-prefill" if chunked else "--no-enable-chunked-prefill",
        *("--kv-bytes-per-token", str(kv_bytes_per_token(spec.model, engine))),
        *("--kv-transfer-bandwidth", f"{calibration.kv_transfer_bytes_per_s * engine.gpus / 1e9:g}"),
        *("--planner-profile-data", f"{PLAN_DIR}/{step_times_file(role)}", "--speedup-ratio", "1"),
    )
