"""Test which processes each generation of software starts, and on which nodes and GPUs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.plans import CASES, launch_of, workers_of

from tune.deploy.plan import render
from tune.spec.cluster import ClusterFacts
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
MakeFacts = Callable[..., ClusterFacts]


def test_processes_are_kept_with_dynamic_discovery_and_no_block_reuse(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    reuse = {"decode__kv_cache_config__enable_block_reuse": True}
    kept = [{}, CASES["dynamo_v1"], CASES["dynamo_v1"] | reuse]
    plans = [render(make_spec(**case), make_facts()) for case in kept]
    assert [launch_of(plan).keeps_processes for plan in plans] == [False, True, False]


def test_dynamo_v0_starts_what_the_published_launch_starts(
    make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    plan = render(make_spec(), make_facts())
    assert [p.name for p in plan.processes[:3]] == ["nats", "etcd", "frontend"]
    assert plan.processes[-1].name == "client"
    assert [p.node_index for p in workers_of(plan)] == list(range(18))
    worker = plan.processes[3]
    assert worker.tasks == 4
    assert {
        *("ETCD_ENDPOINTS", "NATS_SERVER", "HEAD_NODE", "HEAD_NODE_IP", "DISAGGREGATION_MODE"),
        *("DISAGGREGATION_STRATEGY", "ENGINE_CONFIG", "MODEL_PATH", "SERVED_MODEL_NAME"),
    } <= worker.env.keys()
    assert "CUDA_VISIBLE_DEVICES" not in worker.env
    assert worker.argv[-2:] == ("--disaggregation-strategy", "prefill_first")


def test_dynamo_v1_has_no_nats_and_no_strategy(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(**CASES["dynamo_v1"]), make_facts())
    assert [p.name for p in plan.processes[:2]] == ["etcd", "frontend"]
    for process in plan.processes:
        assert "--disaggregation-strategy" not in process.argv
        assert not {"NATS_SERVER", "DISAGGREGATION_STRATEGY"} & process.env.keys()
    assert plan.processes[1].env["DYN_EVENT_PLANE"] == "zmq"


def test_decode_first_swaps_the_component_names(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    plan = render(make_spec(split__disaggregation_strategy="decode_first"), make_facts())
    assert {"tensorrt_llm_next=14", "tensorrt_llm=4"} <= set(plan.readiness_command)


def test_tp8_spans_two_nodes_and_tp2_shares_one(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    wide = workers_of(render(make_spec(**CASES["tp8_decode"]), make_facts()))
    assert [p.nodes for p in wide if p.role == "decode"] == [(14, 15), (16, 17)]
    assert wide[-1].tasks == 8
    narrow = workers_of(render(make_spec(**CASES["tp2_sharing"]), make_facts()))
    seen = [(p.nodes, p.env.get("CUDA_VISIBLE_DEVICES")) for p in narrow]
    assert seen[:5] == [((0,), "0,1"), ((0,), "2,3"), ((1,), "0,1"), ((1,), "2,3"), ((2,), "0,1")]
    assert seen[5:] == [((3,), None), ((4,), None)]


@pytest.mark.slow
@hypothesis_settings(max_examples=40, deadline=None)
@given(
    prefill_workers=st.integers(1, 12),
    decode_workers=st.integers(1, 6),
    prefill_tp=st.sampled_from([1, 2, 4, 8]),
    decode_tp=st.sampled_from([1, 2, 4, 8]),
    stack=st.sampled_from([("dynamo_v0", "flat"), ("dynamo_v1", "nested")]),
)
def test_each_gpu_serves_one_worker_and_workers_are_whole(  # noqa: PLR0917
    make_spec: MakeSpec,
    make_facts: MakeFacts,
    prefill_workers: int,
    decode_workers: int,
    prefill_tp: int,
    decode_tp: int,
    stack: tuple[str, str],
) -> None:
    spec = make_spec(
        split__prefill_workers=prefill_workers,
        split__decode_workers=decode_workers,
        prefill__tensor_parallel_size=prefill_tp,
        decode__tensor_parallel_size=decode_tp,
        stack__name=stack[0],
        stack__engine_yaml=stack[1],
        hardware__nodes=36,
    )
    plan = render(spec, make_facts())
    placed = workers_of(plan)
    gpus = [gpu for process in placed for gpu in process.gpus]
    assert len(gpus) == len(set(gpus)) == prefill_workers * prefill_tp + decode_workers * decode_tp
    assert (
        len({p.log for p in plan.processes}) == len({p.name for p in plan.processes}) == len(plan.processes)
    )
    for process in placed:
        per_node = [sum(node == at for at, _ in process.gpus) for node in process.nodes]
        assert len(set(per_node)) == 1
    assert plan == render(spec, make_facts())
