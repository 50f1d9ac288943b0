"""Hold every adapter of the table to what its callers rely on."""

from __future__ import annotations

import re

import pytest
from support.composed import composed

from tune.config import compose_overrides
from tune.deploy.plan import render
from tune.engines.base import EngineAdapter, Remedy, RemedyKind
from tune.engines.check import check
from tune.engines.registry import adapter_named
from tune.manifest.process import PLACEHOLDERS
from tune.spec.engine_table import ENGINES
from tune.spec.findings import only_errors
from tune.spec.settings import Settings

STACKS = {
    "trtllm": ("dynamo_v0", "dynamo_v04", "dynamo_v07", "dynamo_v1"),
    "dynamo_mocker": ("dynamo_v1_mocker",),
    "dynamo_vllm": ("dynamo_vllm",),
}
POOLS = {"dynamo_vllm": ("prefill=vllm", "decode=vllm")}
"""Options of the pools, of an engine that has no settings of the reference configuration."""
CASES = [(engine, stack) for engine, stacks in STACKS.items() for stack in stacks]
WRITTEN_BY_DEPLOY = {
    *("client.json", "environment", "commands", "processes.json", "ready.py", "rank.sh", "job.sbatch"),
    *("check_arguments.py", "argument_check.json", "collect_evidence.py"),
}


@pytest.fixture(params=CASES, ids=[" ".join(case) for case in CASES])
def case(request: pytest.FixtureRequest) -> tuple[EngineAdapter, Settings]:
    """Return an adapter and the shipped configuration of one of its stacks."""
    engine, stack = request.param
    settings = composed("cluster=slurm", f"stack={stack}", *POOLS.get(engine, ()))
    assert settings.stack.engine == engine
    return adapter_named(engine), settings


def test_every_engine_of_the_table_is_held_to_the_contract() -> None:
    assert set(STACKS) == set(ENGINES)


def test_the_shipped_configuration_breaks_no_rule(case: tuple[EngineAdapter, Settings]) -> None:
    assert not only_errors(check(case[1].trial_spec))


def test_services_start_first_and_workers_by_pool(case: tuple[EngineAdapter, Settings]) -> None:
    _, settings = case
    processes = render(settings.trial_spec, settings.cluster).processes
    services = len(case[0].services(settings.trial_spec, settings.cluster))
    assert {process.role for process in processes[:services]} <= {"etcd", "nats"}
    roles = [process.role for process in processes[services:]]
    assert roles == ["frontend", *["prefill"] * 14, *["decode"] * 4, "client"]
    workers = [process for process in processes if process.role in ("prefill", "decode")]
    assert all(re.fullmatch(rf"{worker.role}_w\d+", worker.name) for worker in workers)
    assert all(service.listens for service in processes[:services])


def test_workers_take_gpus_where_they_compute_tokens(case: tuple[EngineAdapter, Settings]) -> None:
    adapter, settings = case
    processes = render(settings.trial_spec, settings.cluster).processes
    gpus = [process.gpus for process in processes if process.role in ("prefill", "decode")]
    assert [len(worker) for worker in gpus] == [4 * adapter.computes_tokens] * 18


def test_files_of_an_engine_hide_none_of_deploy(case: tuple[EngineAdapter, Settings]) -> None:
    adapter, settings = case
    plan = render(settings.trial_spec, settings.cluster)
    own = {*adapter.files(settings.trial_spec), *plan.tables}
    assert own.isdisjoint(WRITTEN_BY_DEPLOY)
    assert own | WRITTEN_BY_DEPLOY == {*plan.files, *plan.tables}


def test_plans_are_functions_of_their_arguments(case: tuple[EngineAdapter, Settings]) -> None:
    _, settings = case
    plan = render(settings.trial_spec, settings.cluster)
    assert plan == render(settings.trial_spec, settings.cluster)
    texts = "".join(plan.files[name] for name in ("commands", "environment"))
    assert set(re.findall(r"\$\{\w+\}", texts)) <= set(PLACEHOLDERS)


def test_kv_capacity_is_whole_blocks(case: tuple[EngineAdapter, Settings]) -> None:
    adapter, settings = case
    for engine in (settings.prefill, settings.decode):
        capacity = adapter.kv_capacity_tokens(settings.model, settings.hardware, engine)
        assert capacity > 0
        assert capacity % engine.kv_block_tokens == 0


KINDS: tuple[RemedyKind, ...] = (
    *("larger_worker", "smaller_workers", "larger_chunks", "wider_batch"),
    *("fuller_batches", "more_kv_cache", "faster_transfers"),
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_recommended_overrides_compose(kind: RemedyKind, case: tuple[EngineAdapter, Settings]) -> None:
    adapter, settings = case
    for recommendation in adapter.recommend(settings.trial_spec, Remedy(kind, batch=600.0)):
        assert recommendation.text
        stack = settings.stack
        options = (
            f"stack.engine={stack.engine}",
            f"stack.engine_yaml={stack.engine_yaml}",
            *POOLS.get(stack.engine, ()),
        )
        compose_overrides([*options, *recommendation.overrides])
