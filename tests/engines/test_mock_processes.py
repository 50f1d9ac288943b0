from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.composed import composed

from tune.deploy.plan import render
from tune.engines.dynamo_mocker.mock_processes import step_times_file
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.errors import ConfigurationError
from tune.manifest.process import Process
from tune.spec.cluster import ClusterFacts
from tune.spec.step_table import StepRow
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]

PORTS = {
    "frontend_port": 18000,
    "etcd_client_port": 12379,
    "etcd_peer_port": 12380,
    "nats_port": 14222,
    "system_port": 19100,
}
MOCKED: dict[str, Any] = {
    "stack__name": "dynamo_v1_mocker",
    "stack__engine": "dynamo_mocker",
    "stack__engine_yaml": "nested",
} | {f"stack__{name}": port for name, port in PORTS.items()}


@pytest.fixture
def facts() -> ClusterFacts:
    return local_facts()


def local_facts(**calibration: object) -> ClusterFacts:
    """Return the shipped facts of this machine, with changes of the calibration."""
    facts = composed("cluster=local").cluster
    assert facts.calibration is not None
    return facts.model_copy(update={"calibration": facts.calibration.model_copy(update=calibration)})


def flags(process: Process) -> dict[str, str]:
    """Return the value after each flag of a command line."""
    return dict(zip(process.argv, (*process.argv[1:], ""), strict=True))


def workers(spec: TrialSpec, facts: ClusterFacts) -> dict[str, Process]:
    return {p.name: p for p in render(spec, facts).processes if p.role in ("prefill", "decode")}


def test_each_worker_has_its_own_process_and_ports(make_spec: MakeSpec, facts: ClusterFacts) -> None:
    plan = render(make_spec(**MOCKED), facts)
    names = [process.name for process in plan.processes]
    assert names[:3] == ["nats", "etcd", "frontend"]
    assert names[3:-1] == [f"prefill_w{i}" for i in range(14)] + [f"decode_w{i}" for i in range(4)]
    assert [p.metrics_port for p in plan.processes[3:-1]] == list(range(19100, 19118))
    assert [p.env["DYN_SYSTEM_PORT"] for p in plan.processes[3:-1]] == [str(p) for p in range(19100, 19118)]
    assert not any(process.gpus for process in plan.processes)
    listened = [port.number for process in plan.processes for port in process.listens]
    assert len(listened) == len(set(listened)) == 4 + 18
    assert set(PORTS.values()) <= set(listened)


def test_servers_listen_on_the_address_of_their_node_alone(make_spec: MakeSpec, facts: ClusterFacts) -> None:
    plan = render(make_spec(**MOCKED), facts)
    by_name = {process.name: process for process in plan.processes}
    assert flags(by_name["nats"])["-a"] == flags(by_name["frontend"])["--http-host"] == "${NODE_IP}"
    assert flags(by_name["etcd"])["--listen-client-urls"] == "http://${NODE_IP}:12379"
    for process in plan.processes[:-1]:
        assert "0.0.0.0" not in " ".join(process.argv)
    for variable in ("DYN_TCP_RPC_HOST", "DYN_TCP_RESPONSE_STREAM_HOST", "DYN_SYSTEM_HOST"):
        assert by_name["prefill_w0"].env[variable] == by_name["frontend"].env[variable] == "${NODE_IP}"
    for name in ("prefill_w0", "frontend"):
        assert by_name[name].env["HOME"] == by_name[name].env["TMPDIR"] == "${SCRATCH_DIR}"
    assert by_name["decode_w0"].env["DYN_EVENT_PLANE"] == "nats"  # ZeroMQ's publishers bind to 0.0.0.0
    assert by_name["decode_w0"].env["ETCD_ENDPOINTS"] == "${HEAD_NODE_IP}:12379"
    assert "http://${HEAD_NODE_IP}:18000" in plan.readiness_command


def test_engine_settings_become_flags(make_spec: MakeSpec, facts: ClusterFacts) -> None:
    spec = make_spec(**MOCKED | {"prefill__max_batch_size": 96, "decode__max_num_tokens": 256})
    found = workers(spec, facts)
    prefill, decode = flags(found["prefill_w0"]), flags(found["decode_w3"])
    capacity = kv_capacity_tokens(spec, "decode")
    assert (prefill["--max-num-seqs"], prefill["--max-num-batched-tokens"]) == ("96", "4096")
    assert (decode["--max-num-seqs"], decode["--max-num-batched-tokens"]) == ("256", str(capacity))
    assert int(decode["--num-gpu-blocks-override"]) * int(decode["--block-size"]) == capacity
    assert (prefill["--engine-type"], decode["--engine-type"]) == ("vllm", "trtllm")
    assert prefill["--max-model-len"] == decode["--max-model-len"] == "20192"
    assert prefill["--kv-bytes-per-token"] == "258048"
    assert prefill["--disaggregation-mode"] == "prefill"
    assert "--no-enable-prefix-caching" in prefill
    assert "--enable-chunked-prefill" in prefill
    assert prefill["--planner-profile-data"] == "${PLAN_DIR}/prefill_step_times.npz"


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"prefill__kv_cache_config__enable_block_reuse": True}, "--enable-prefix-caching"),
        ({"prefill__enable_chunked_prefill": False}, "--no-enable-chunked-prefill"),
    ],
)
def test_switches_are_rendered_on_and_off(
    change: dict[str, Any], flag: str, make_spec: MakeSpec, facts: ClusterFacts
) -> None:
    assert flag in workers(make_spec(**MOCKED | change), facts)["prefill_w0"].argv
    assert flag not in workers(make_spec(**MOCKED), facts)["prefill_w0"].argv


def test_programs_come_from_the_environment_of_dynamo(make_spec: MakeSpec, facts: ClusterFacts) -> None:
    plan = render(make_spec(**MOCKED), facts)
    by_name = {process.name: process for process in plan.processes}
    assert by_name["prefill_w0"].argv[0] == by_name["frontend"].argv[0] == ".venv-dynamo/bin/python3"
    assert by_name["nats"].argv[0] == ".venv-dynamo/bin/nats-server"
    assert ".venv-dynamo/bin/etcd" in by_name["etcd"].argv
    bare = render(make_spec(**MOCKED), facts.model_copy(update={"dynamo_venv": None}))
    assert {p.argv[0] for p in bare.processes} == {"nats-server", "bash", "python3"}


def test_plan_holds_the_tables_of_its_workers(make_spec: MakeSpec, facts: ClusterFacts) -> None:
    spec = make_spec(**MOCKED)
    plan = render(spec, facts)
    assert set(plan.tables) == {step_times_file("prefill"), step_times_file("decode")}
    assert not {"prefill.yaml", "decode.yaml"} & plan.files.keys()
    assert not render(make_spec(), facts).tables


def test_mock_engines_need_one_calibration_for_all_workers(make_spec: MakeSpec) -> None:
    slurm = composed("cluster=slurm").cluster.model_copy(update={"calibration": None})
    with pytest.raises(ConfigurationError, match=r"cluster\.calibration: found none in cluster=slurm"):
        render(make_spec(**MOCKED), slurm)
    slowed = local_facts(last_decode_worker_scale=1.14)
    with pytest.raises(ConfigurationError, match=r"last_decode_worker_scale: found 1\.14, expected 1"):
        render(make_spec(**MOCKED), slowed)
    tabled = local_facts(decode_steps=(StepRow(1, 1, None, 8.0), StepRow(2, 2, None, 9.0)))
    with pytest.raises(ConfigurationError, match=r"decode_steps: found a table, expected null"):
        render(make_spec(**MOCKED), tabled)


def test_missing_system_ports_are_refused(make_spec: MakeSpec, facts: ClusterFacts) -> None:
    with pytest.raises(ConfigurationError, match=r"stack\.system_port"):
        render(make_spec(**MOCKED | {"stack__system_port": None}), facts)
