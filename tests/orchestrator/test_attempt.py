"""Run attempts with real processes: how each ends, what it records, and that nothing stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from support.fake_deployment import (
    MARK,
    QUERIES,
    SERVERS,
    MakeTrial,
    Trial,
    assert_nothing_left,
    finish,
)
from support.waiting import wait_for

from tune.analysis.measure import measure
from tune.client.client_settings import read_client_settings
from tune.errors import ResumableError, TuneError
from tune.manifest.process_manifest import read_manifest
from tune.orchestrator.attempt import run_attempt
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses
from tune.orchestrator.managed_process import ManagedProcess
from tune.orchestrator.process_pool import ManagedProcesses
from tune.orchestrator.readiness import ProgressDeadline, bring_up
from tune.orchestrator.warm_up import warm_up
from tune.orchestrator.worker_load import require_all_workers_used, worker_request_counts
from tune.records.folders import PROBE_FOLDER
from tune.records.scrapes import METRICS_FILE, read_metrics, total


@contextmanager
def deployed(trial: Trial) -> Iterator[Deployment]:
    """Yield the deployment of a trial in this process, and end what it started."""
    manifest, scratch = read_manifest(trial.folder.plan), trial.root / "scratch"
    scratch.mkdir()
    nodes = NodeAddresses(("localhost",) * manifest.nodes, ("127.0.0.1",) * manifest.nodes)
    running: list[ManagedProcess] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, trial.mark)
        launcher = ChildProcessLauncher(scratch)
    try:
        yield Deployment(manifest, nodes, launcher, running, plan=trial.folder.plan, raw=trial.attempt)
    finally:
        for process in running:
            process.handle.kill()
        wait_for(lambda: all(process.handle.poll() is not None for process in running))


class RevokedLauncher(ChildProcessLauncher):
    """Start processes on a machine that is being taken back."""

    def revoked_reason(self) -> str | None:
        return "taken back"


@pytest.mark.parametrize(
    ("launcher", "ending"),
    [(ChildProcessLauncher, (3, "no answer")), (RevokedLauncher, (130, "taken back after"))],
)
@pytest.mark.parametrize("failure", [AttemptFailed, ResumableError])
def test_any_failure_during_a_revocation_is_the_revocation(
    launcher: type[ChildProcessLauncher],
    ending: tuple[int, str],
    failure: type[TuneError],
    make_trial: MakeTrial,
    tmp_path: Path,
) -> None:
    """Whatever shows it first: a step that ended, a worker that refuses a connection, Slurm's commands."""
    trial = make_trial()

    def allocate(_nodes: int) -> NodeAddresses:
        raise failure("no answer")

    processes = ManagedProcesses(print, last=False)
    assert run_attempt(trial.attempt, allocate, launcher(tmp_path), print, processes) == ending[0]
    assert (trial.record.error or "").startswith(ending[1])
    assert trial.record.cause == "infrastructure"


@pytest.mark.slow
def test_measured_attempt_leaves_exactly_its_records(make_trial: MakeTrial) -> None:
    trial = make_trial(real_client=True, image=__file__)
    code, said = trial.run()
    assert code == 0, said
    assert trial.record.error is None
    assert trial.record.held_s > 1.0
    assert trial.record.image_sha256 == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    probe = measure(trial.attempt / PROBE_FOLDER, trial.spec, PROBE_FOLDER)
    assert probe.queries == QUERIES
    taken: dict[str, list[float]] = {}
    for scrape in read_metrics(trial.attempt / PROBE_FOLDER / METRICS_FILE):
        count = total(scrape.samples, "dynamo_component_requests_total")
        taken.setdefault(scrape.process, []).append(count or 0.0)
    assert taken.keys() == {"frontend", "prefill_w0", "prefill_w1", "decode_w0"}
    assert taken["decode_w0"][-1] - taken["decode_w0"][0] >= QUERIES - 5
    assert {path.stem for path in (trial.attempt / "logs").iterdir()} == {*SERVERS, "client"}
    assert "prefill 2 of 2, backend 1 of 1, model listed" in said
    assert (
        "every worker has worked, after 1 rounds of warm-up; 2 of 2 pairs of prefill and decode worker"
        in said
    )
    assert f"issued {QUERIES}/{QUERIES}" in said
    assert_nothing_left(trial)


@pytest.mark.slow
def test_every_frontend_is_awaited_warmed_up_and_used(make_trial: MakeTrial) -> None:
    trial = make_trial(real_client=True, frontends=3)
    code, said = trial.run()
    assert code == 0, said
    assert "after 3 rounds of warm-up; 2 of 2 pairs of prefill and decode worker; all 3 frontends" in said
    taken = {
        scrape.process: total(scrape.samples, "dynamo_component_requests_total") or 0.0
        for scrape in read_metrics(trial.attempt / PROBE_FOLDER / METRICS_FILE)
        if scrape.process.startswith("frontend")
    }
    assert taken.keys() == {"frontend", "frontend_1", "frontend_2"}
    assert taken["frontend"] == taken["frontend_1"] == taken["frontend_2"] == QUERIES / 3 + 2
    assert_nothing_left(trial)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_server_killed_in_mid_run_fails_the_attempt(name: str, make_trial: MakeTrial) -> None:
    trial = make_trial()
    with trial.start() as orchestrator:
        trial.pid("client")
        os.kill(trial.pid(name), signal.SIGKILL)
        assert finish(orchestrator) == 3
    assert f"{name} ended by SIGKILL before the client did" in (trial.record.error or "")
    assert f"{name} starts" in (trial.record.error or ""), "the end of its log"
    assert trial.record.cause == "infrastructure"
    assert_nothing_left(trial)


@pytest.mark.slow
def test_client_killed_in_mid_run_fails_the_attempt(make_trial: MakeTrial) -> None:
    trial = make_trial()
    with trial.start() as orchestrator:
        os.kill(trial.pid("client"), signal.SIGKILL)
        assert finish(orchestrator) == 3
    assert "the load client ended by SIGKILL" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
@pytest.mark.parametrize("code", [2, 3, 130])
def test_client_that_fails_fails_the_attempt(code: int, make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"client": code})
    assert trial.run()[0] == 3
    assert f"the load client ended with exit code {code}" in (trial.record.error or "")
    assert trial.record.cause == "infrastructure"
    assert_nothing_left(trial)


@pytest.mark.slow
def test_worker_that_ends_before_it_is_ready_fails_at_once(
    make_trial: MakeTrial,
) -> None:
    trial = make_trial(behaviour={"ends": {"decode_w0": [0, "bye"]}}, quiet_s=60.0)
    code, said = trial.run()
    assert code == 3
    assert "decode_w0 ended with exit code 0" in said
    assert "| bye" in (trial.record.error or "")
    assert trial.record.cause == "infrastructure"
    assert trial.record.held_s < 60.0
    assert_nothing_left(trial)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB.",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for TorchLlmArgs\nmax_num_tokenz",
    ],
)
def test_engine_that_rejects_its_configuration_is_a_configuration_failure(
    words: str, make_trial: MakeTrial
) -> None:
    trial = make_trial(behaviour={"ends": {"prefill_w1": [1, words]}})
    assert trial.run()[0] == 1
    assert trial.record.cause == "configuration"
    assert words.splitlines()[-1] in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_frontend_log_is_no_evidence_against_the_configuration(make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"ends": {"frontend": [1, "CUDA out of memory"]}})
    assert trial.run()[0] == 3
    assert trial.record.cause == "infrastructure"


class ClockAfter:
    """Return 0 until one of `said` holds `words`, then one second more with every look."""

    def __init__(self, said: list[str], words: str) -> None:
        self._said, self._words, self._seconds = said, words, count()

    def __call__(self) -> float:
        return float(next(self._seconds) if any(self._words in line for line in self._said) else 0)


@pytest.mark.slow
def test_worker_that_never_registers_is_named_with_its_log(make_trial: MakeTrial) -> None:
    """The clock stands still until all others have registered; the frontend logs every question."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"]})
    said: list[str] = []
    clock = ClockAfter(said, "prefill 1 of 2, backend 1 of 1")
    with deployed(trial) as deployment, pytest.raises(AttemptFailed) as failed:
        bring_up(deployment, ProgressDeadline(20.0, 60.0, clock), said.append)
    error = str(failed.value)
    assert failed.value.cause == "infrastructure"
    assert "nothing moved for 20 s (cluster.deadlines.quiet_s)" in error
    assert "prefill 1 of 2" in error
    assert "Missing: 1 of the workers prefill_w0, prefill_w1." in error
    assert "prefill_w0 starts" in error
    assert "decode_w0" not in error
    assert_nothing_left(trial)


REFUSAL = "1 validation error for TorchLlmArgs\nmax_num_tokenz"


@pytest.mark.slow
def test_worker_that_rejects_its_configuration_and_waits_is_noticed_within_a_minute(
    make_trial: MakeTrial,
) -> None:
    """A launcher swallows the exit code: the process goes on, and only its log says why nothing happens."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"], "says": {"prefill_w0": REFUSAL}})
    said: list[str] = []
    clock = ClockAfter(said, "prefill 1 of 2, backend 1 of 1")
    with deployed(trial) as deployment, pytest.raises(AttemptFailed) as failed:
        bring_up(deployment, ProgressDeadline(900.0, 3600.0, clock), said.append)
    assert failed.value.cause == "configuration"
    assert str(failed.value).startswith("prefill_w0 rejects its configuration and does not end")
    assert "max_num_tokenz" in str(failed.value)
    assert clock() < 60
    assert_nothing_left(trial)


@pytest.mark.slow
def test_words_of_a_worker_that_goes_on_are_no_refusal(make_trial: MakeTrial) -> None:
    """Its log grows; what it said becomes evidence only where nothing moves any more."""
    trial = make_trial(behaviour={"unregistered": ["prefill_w0"], "says": {"prefill_w0": REFUSAL}})
    said: list[str] = []
    clock = ClockAfter(said, "prefill 1 of 2, backend 1 of 1")

    def looked_at() -> float:
        for log in (trial.attempt / "logs").glob("*prefill_w0.out"):
            with log.open("a") as file:
                file.write("reading weights\n")
        return clock()

    with deployed(trial) as deployment, pytest.raises(AttemptFailed, match="not within 120 s") as failed:
        bring_up(deployment, ProgressDeadline(20.0, 120.0, looked_at), said.append)
    assert failed.value.cause == "configuration", "of a deployment that kept everybody waiting to the end"
    assert_nothing_left(trial)


@pytest.mark.slow
def test_occupied_port_is_named_and_nothing_starts(make_trial: MakeTrial) -> None:
    trial = make_trial()
    with socket.create_server(("127.0.0.1", trial.ports["prefill_w1"])):
        code, _ = trial.run()
    assert code == 3
    assert f"stack.prefill_w1_port={trial.ports['prefill_w1']} for prefill_w1" in (trial.record.error or "")
    assert not (trial.attempt / "logs").exists()
    assert_nothing_left(trial)


@pytest.mark.slow
def test_missing_program_is_named(make_trial: MakeTrial) -> None:
    trial = make_trial()
    path = trial.folder.plan / "processes.json"
    path.write_text(path.read_text().replace(sys.executable, "no-such-program"))
    assert trial.run()[0] == 3
    assert "etcd could not be started: 'no-such-program'" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_folder_that_pyxis_would_split_is_refused(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "a:b")
    path = trial.folder.plan / "processes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"container": ["--container-image=x"]}))
    assert trial.run()[0] == 3
    assert "a colon or comma in the path" in (trial.record.error or "")
    assert_nothing_left(trial)


@pytest.mark.slow
def test_damaged_plan_is_recorded(make_trial: MakeTrial) -> None:
    trial = make_trial()
    (trial.folder.plan / "processes.json").write_text("{")
    assert trial.run()[0] == 3
    assert "not a readable plan" in (trial.record.error or "")


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
