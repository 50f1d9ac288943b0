"""Test the warm-up: every worker and every pair works before the run; what is not counted is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.deployed import deployed
from support.fake_deployment import QUERIES, MakeTrial, assert_nothing_left

from tune.client.client_settings import read_client_settings
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.readiness import ProgressDeadline, bring_up
from tune.orchestrator.warm_up import warm_up
from tune.orchestrator.worker_load import require_all_workers_used, worker_request_counts


@pytest.mark.slow
def test_warm_up_notices_a_worker_without_requests(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"one_engine_after": 0})
    assert trial.run()[0] == 3
    assert "prefill_w0 42, prefill_w1 none, decode_w0 42" in (trial.record.error or "")
    assert not (trial.state / "began" / "client").exists()
    assert_nothing_left(trial)


@pytest.mark.slow
def test_warm_up_asks_the_pairs_of_failed_requests_again(make_trial: MakeTrial) -> None:
    """A frontend that has just found its workers answers 503 to all requests of the first round."""
    trial = make_trial(workers=(4, 3), behaviour={"unready_requests": 4})
    said: list[str] = []
    with deployed(trial) as deployment:
        bring_up(deployment, ProgressDeadline(60.0, 60.0), print)
        urls = [deployment.bind(url) for url in deployment.manifest.endpoint_urls]
        warm_up(deployment, read_client_settings(trial.folder.plan / "client.json", urls), said.append)
    assert "after 4 rounds of warm-up; 12 of 12 pairs of prefill and decode worker" in said[-1]
    assert_nothing_left(trial)


@pytest.mark.slow
def test_warm_up_asks_every_aggregated_worker_by_its_id(make_trial: MakeTrial) -> None:
    """The answers of the first round name all workers, and two frontends take two rounds."""
    trial = make_trial(aggregated=3, frontends=2)
    said: list[str] = []
    with deployed(trial) as deployment:
        bring_up(deployment, ProgressDeadline(60.0, 60.0), print)
        urls = [deployment.bind(url) for url in deployment.manifest.endpoint_urls]
        warm_up(deployment, read_client_settings(trial.folder.plan / "client.json", urls), said.append)
        counts = worker_request_counts(deployment)
    assert counts == dict.fromkeys(("aggregated_w0", "aggregated_w1", "aggregated_w2"), 2)
    assert said[-1] == (
        "every worker has worked, after 2 rounds of warm-up; 3 of 3 aggregated workers; all 2 frontends have "
        "answered"
    )
    assert_nothing_left(trial)


@pytest.mark.slow
def test_an_aggregated_worker_without_requests_fails_the_run(make_trial: MakeTrial) -> None:
    trial = make_trial(aggregated=2, behaviour={"one_engine_after": 0})
    assert trial.run()[0] == 3
    assert "aggregated_w0 42, aggregated_w1 none" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_warm_up_says_what_it_could_not_count(make_trial: MakeTrial) -> None:
    """An older frontend cannot be asked for pairs, and workers may have no counters."""
    trial = make_trial(behaviour={"refuses_routing": True})
    said: list[str] = []
    with deployed(trial) as deployment:
        bring_up(deployment, ProgressDeadline(60.0, 60.0), print)
        uncounted = [replace(process, metrics_port=None) for process in deployment.manifest.processes]
        deployment.manifest = deployment.manifest.model_copy(update={"processes": tuple(uncounted)})
        urls = [deployment.bind(url) for url in deployment.manifest.endpoint_urls]
        warm_up(deployment, read_client_settings(trial.folder.plan / "client.json", urls), said.append)
    assert said[-1] == (
        "requests of single workers are not counted, after 3 rounds of warm-up; which of 2 pairs of prefill "
        "and decode worker they reached is not counted"
    )
    assert_nothing_left(trial)


@pytest.mark.slow
def test_run_says_where_it_could_not_count(make_trial: MakeTrial) -> None:
    trial = make_trial()
    said: list[str] = []
    with deployed(trial) as deployment:
        bring_up(deployment, ProgressDeadline(60.0, 60.0), print)
        before = worker_request_counts(deployment)
        require_all_workers_used(deployment, before, said.append)
        assert said == [], "every worker has a counter"
        first, *others = deployment.manifest.processes
        uncounted = [replace(each, metrics_port=None) if each.role == "decode" else each for each in others]
        deployment.manifest = deployment.manifest.model_copy(update={"processes": (first, *uncounted)})
        require_all_workers_used(deployment, before, said.append)
    (line,) = said
    assert line.startswith("requests of 1 of 3 workers are not counted")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_warm_up_fails_when_nothing_answers(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"silent": True}, quiet_s=1.0)
    with deployed(trial) as deployment:
        bring_up(deployment, ProgressDeadline(60.0, 60.0), print)
        urls = [deployment.bind(url) for url in deployment.manifest.endpoint_urls]
        settings = read_client_settings(trial.folder.plan / "client.json", urls)
        with pytest.raises(AttemptFailed) as failed:
            warm_up(deployment, settings, print)
    error = str(failed.value)
    assert "No answer came in the warm-up for 1 s (cluster.deadlines.quiet_s)" in error
    assert "Requests got: prefill_w0 none, prefill_w1 none, decode_w0 none" in error
    assert_nothing_left(trial)


@pytest.mark.slow
def test_run_with_an_unused_worker_fails(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"one_engine_after": 2}, real_client=True)
    assert trial.run()[0] == 3
    assert f"over the prefill workers: prefill_w0 {QUERIES}, prefill_w1 none" in (trial.record.error or "")
    assert_nothing_left(trial)
