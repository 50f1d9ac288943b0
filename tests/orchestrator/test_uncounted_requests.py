"""Test counters under the names of earlier releases of Dynamo, and processes that have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.deployed import deployed
from support.fake_deployment import MakeTrial, Trial, assert_nothing_left

from tune.client.client_settings import read_client_settings
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.readiness import ProgressDeadline, bring_up
from tune.orchestrator.warm_up import warm_up
from tune.orchestrator.worker_load import require_all_workers_used, wait_until_drained, worker_request_counts

WORKER_0_4_0 = """
requests_total{component="tensorrt_llm",endpoint="generate",namespace="dynamo"} REQUESTS
requests_total{component="tensorrt_llm",endpoint="clear_kv_blocks",namespace="dynamo"} 0
concurrent_requests{component="tensorrt_llm",endpoint="generate",namespace="dynamo"} IN_FLIGHT
"""
WORKER_0_5_1 = """
dynamo_component_requests_total{dynamo_component="tensorrt_llm",dynamo_endpoint="generate"} REQUESTS
dynamo_component_inflight_requests{dynamo_component="tensorrt_llm",dynamo_endpoint="generate"} IN_FLIGHT
"""
FRONTEND_0_4_0 = 'nv_llm_http_service_inflight_requests{model="m"} QUEUEING\n'
FRONTEND_0_5_1 = 'dynamo_frontend_inflight_requests_total{model="m"} QUEUEING\n'
NO_COUNTERS = "process_cpu_seconds_total 3.5\n"


def metrics(frontend: str, worker: str) -> dict[str, dict[str, str]]:
    """Return the behaviour of processes whose /metrics are these texts."""
    return {"metrics": {"frontend": frontend, "prefill": worker, "decode": worker}}


@contextmanager
def warmed_up(trial: Trial, said: list[str]) -> Iterator[Deployment]:
    """Yield the deployment of `trial` after its warm-up, whose lines are added to `said`."""
    with deployed(trial) as deployment:
        bring_up(deployment, ProgressDeadline(60.0, 60.0), print)
        urls = [deployment.bind(url) for url in deployment.manifest.endpoint_urls]
        warm_up(deployment, read_client_settings(trial.folder.plan / "client.json", urls), said.append)
        yield deployment
    assert_nothing_left(trial)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frontend", "worker"), [(FRONTEND_0_4_0, WORKER_0_4_0), (FRONTEND_0_5_1, WORKER_0_5_1)]
)
@pytest.mark.parametrize("held_at", ["holding", "queueing"])
def test_names_of_earlier_releases_are_counted(
    frontend: str, worker: str, held_at: str, make_trial: MakeTrial
) -> None:
    trial, said = make_trial(behaviour=metrics(frontend, worker)), list[str]()
    with warmed_up(trial, said) as deployment:
        assert said[-1].startswith("every worker has worked, ")
        assert wait_until_drained(deployment, said.append) == []
        (trial.state / held_at).touch()
        with pytest.raises(AttemptFailed, match=r"^[13] requests of a run are still held"):
            wait_until_drained(deployment, said.append, limit_s=0.0)


@pytest.mark.slow
def test_processes_without_counters_are_named_and_fail_nothing(make_trial: MakeTrial) -> None:
    trial, said = make_trial(behaviour=metrics(NO_COUNTERS, NO_COUNTERS)), list[str]()
    with warmed_up(trial, said) as deployment:
        assert said.pop().startswith("requests of single workers are not counted, ")
        (trial.state / "holding").touch()
        del said[:]
        before = worker_request_counts(deployment)
        assert before == {}
        uncounted = wait_until_drained(deployment, said.append, limit_s=0.0)
        require_all_workers_used(deployment, before, said.append)
    assert [process.name for process in uncounted] == ["frontend", "prefill_w0", "prefill_w1", "decode_w0"]
    drained, spread = said
    assert drained == (
        "requests held by frontend, prefill_w0, prefill_w1, decode_w0 are not counted: whether any are left "
        "there is unknown"
    )
    assert spread.startswith("requests of 3 of 3 workers are not counted")


@pytest.mark.slow
def test_workers_of_mid_2025_have_no_counters_while_its_frontend_has(make_trial: MakeTrial) -> None:
    """Dynamo 0.3.2: what waits at the frontend is waited for, what workers hold is named."""
    trial, said = make_trial(behaviour=metrics(FRONTEND_0_4_0, NO_COUNTERS)), list[str]()
    with warmed_up(trial, said) as deployment:
        wait_until_drained(deployment, said.append)
        assert said[-1].startswith("requests held by prefill_w0, prefill_w1, decode_w0 are not counted")
        (trial.state / "queueing").touch()
        with pytest.raises(AttemptFailed, match=r"^1 requests of a run are still held"):
            wait_until_drained(deployment, said.append, limit_s=0.0)


@pytest.mark.slow
def test_warm_up_waits_for_the_workers_that_are_counted(make_trial: MakeTrial) -> None:
    trial, said = make_trial(behaviour={"metrics": {"prefill_w1": NO_COUNTERS}}), list[str]()
    with warmed_up(trial, said):
        assert said[-1].startswith("every worker that can be counted has worked, 2 of 3, after ")
