"""Run attempts with real processes: how each ends, what it records, and that nothing stays behind."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest
from support.fake_deployment import QUERIES, SERVERS, MakeTrial, assert_nothing_left, finish

from tune.analysis.measure import measure
from tune.errors import ResumableError, TuneError
from tune.orchestrator.attempt import run_attempt
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses
from tune.orchestrator.process_pool import ManagedProcesses
from tune.records.folders import PROBE_FOLDER
from tune.records.scrapes import METRICS_FILE, read_metrics, total


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
    assert trial.record.occupied_s > 1.0
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
@pytest.mark.parametrize(("code", "cause"), [(2, "harness"), (3, "harness"), (130, "infrastructure")])
def test_client_that_fails_fails_the_attempt(code: int, cause: str, make_trial: MakeTrial) -> None:
    trial = make_trial(behaviour={"client": code})
    assert trial.run()[0] == 3
    assert f"the load client ended with exit code {code}" in (trial.record.error or "")
    assert trial.record.cause == cause
    assert_nothing_left(trial)
