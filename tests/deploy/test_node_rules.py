"""Test the rules on facts of a cluster that meet the workers of a trial on their nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tune.deploy.node_rules import check_nodes
from tune.spec.cluster import ClusterFacts
from tune.spec.findings import only_errors
from tune.spec.trial import TrialSpec

MakeSpec = Callable[..., TrialSpec]
MakeFacts = Callable[..., ClusterFacts]
BOUND = {"prefill": ("/usr/bin/numactl", "-m", "0,1"), "decode": ("numactl", "-m", "0,1")}
PAIRS = {"prefill__tensor_parallel_size": 2, "split__prefill_workers": 28}


@pytest.mark.parametrize(
    ("prefix", "hardware", "unbound"),
    [
        ({}, "gb200-nvl72", "prefill and decode"),
        ({}, "GB300-own", "prefill and decode"),
        ({"decode": BOUND["decode"], "prefill": ("nice",)}, "gb200-nvl72", "prefill"),
        (BOUND, "gb200-nvl72", None),
        ({}, "b200-dgx", None),
    ],
)
def test_workers_where_gpu_memory_is_a_numa_node_need_numactl(
    prefix: dict[str, Any], hardware: str, unbound: str | None, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    findings = check_nodes(make_spec(hardware__name=hardware), make_facts(command_prefix=prefix))
    named = [f"no numactl before the command of {unbound} workers on {hardware}"] if unbound else []
    assert [finding.found for finding in findings] == named
    assert not only_errors(findings)


@pytest.mark.parametrize(("stagger_s", "refused"), [(3599.0, False), (3600.0, True)])
def test_last_worker_of_a_node_starts_before_nobody_waits_for_it(
    stagger_s: float, refused: bool, make_spec: MakeSpec, make_facts: MakeFacts
) -> None:
    facts = make_facts(load_stagger_s=stagger_s, command_prefix=BOUND)
    assert facts.deadlines.ready_s == 3600
    errors = only_errors(check_nodes(make_spec(**PAIRS), facts))
    assert [error.path for error in errors] == ["cluster.load_stagger_s"] * refused
    assert not check_nodes(make_spec(), facts), "one worker a node"


def test_software_of_2025_needs_time_between_workers_too(make_spec: MakeSpec, make_facts: MakeFacts) -> None:
    quick = make_facts(command_prefix=BOUND).model_copy(
        update={"deadlines": make_facts().deadlines.model_copy(update={"ready_s": 60.0})}
    )
    assert only_errors(check_nodes(make_spec(**PAIRS), quick))
    today = make_spec(**PAIRS, stack__name="dynamo_v1", stack__engine_yaml="nested")
    assert not check_nodes(today, quick)
