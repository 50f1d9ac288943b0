"""Test that only software that refuses a configuration ends an attempt before any worker starts."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from support.fake_deployment import MARK, MakeTrial, Trial, finish
from support.waiting import wait_for

from tune.manifest.process import Process
from tune.manifest.process_manifest import MANIFEST_FILE, read_manifest
from tune.orchestrator import accepted_arguments
from tune.orchestrator.accepted_arguments import require_accepted_arguments
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.launcher import ChildProcessLauncher, NodeAddresses
from tune.orchestrator.managed_process import ManagedProcess, stop_in_order

ACCEPTS = {"versions": {"engine": "1.3"}, "accepted": ["a.yaml"], "refused": {}, "not_checked": {"b": "why"}}
REFUSES = ACCEPTS | {"refused": {"decode.yaml": "moe_confg\n  Extra inputs are not permitted"}}


def answering(answer: dict[str, object]) -> str:
    return f"print({json.dumps(json.dumps({'argument_check': answer}))})"


def with_check(trial: Trial, code: str) -> Trial:
    """Have the plan of `trial` run the Python `code` as its check."""
    path = trial.folder.plan / MANIFEST_FILE
    argv, log = (sys.executable, "-c", code), "logs/check.out"
    check = Process("argument_check", "check", 0, (), {}, argv, log, inherits=(MARK,))
    path.write_text(read_manifest(path.parent).model_copy(update={"argument_check": check}).text())
    return trial


def began(trial: Trial) -> list[str]:
    return [path.name for path in (trial.state / "began").iterdir()]


def check_of(trial: Trial, launcher: ChildProcessLauncher) -> Deployment:
    """Return the deployment of `trial`, of which nothing runs yet."""
    plan, running = trial.folder.plan, list[ManagedProcess]()
    manifest = read_manifest(plan)
    nodes = NodeAddresses(("gb01",) * manifest.nodes, ("127.0.0.1",) * manifest.nodes)
    return Deployment(manifest, nodes, launcher, running, plan=plan, raw=trial.attempt)


@pytest.mark.slow
def test_refusal_ends_the_attempt_before_anything_starts(make_trial: MakeTrial) -> None:
    trial = with_check(make_trial(), answering(REFUSES))
    code, _ = trial.run()
    assert code == 1
    assert trial.record.cause == "configuration"
    assert "engine 1.3 refuses the configuration:\n  decode.yaml: moe_confg" in (trial.record.error or "")
    assert began(trial) == []


@pytest.mark.slow
def test_stop_signal_ends_the_check(make_trial: MakeTrial) -> None:
    trial = with_check(make_trial(), "print('begins', flush=True); import time; time.sleep(1000)")
    process, log = trial.start(), trial.attempt / "logs" / "check.out"
    wait_for(lambda: log.exists() and "begins" in log.read_text())
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert trial.record.cause == "infrastructure"
    assert not trial.alive()


def test_answer_is_printed(tmp_path: Path) -> None:
    trial, said = with_check(Trial(tmp_path), answering(ACCEPTS)), list[str]()
    require_accepted_arguments(check_of(trial, ChildProcessLauncher(tmp_path)), said.append)
    assert said[:2] == ["engine 1.3 accepts a.yaml", "b not checked, because why"]
    with_check(trial, answering(REFUSES))
    with pytest.raises(AttemptFailed) as refusal:
        require_accepted_arguments(check_of(trial, ChildProcessLauncher(tmp_path)), said.append)
    assert refusal.value.cause == "configuration"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('no such container')", "it ended with exit code 1"),
        ("import time; time.sleep(1000)", "no answer within 0.2 s"),
        ("print('fine')", "it ended with exit code 0"),
    ],
)
def test_check_that_fails_hinders_nothing(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepted_arguments, "LIMIT_S", 0.2 if "sleep" in code else 60.0)
    trial, said = with_check(Trial(tmp_path), code), list[str]()
    monkeypatch.setenv(MARK, trial.mark)
    deployment = check_of(trial, ChildProcessLauncher(tmp_path))
    require_accepted_arguments(deployment, said.append)
    assert f"arguments not checked, because {reason}" in said[0]
    assert not trial.alive()
    deployment.require_alive()


def test_workers_that_run_already_are_not_checked_again(tmp_path: Path) -> None:
    trial, said = with_check(Trial(tmp_path), answering(REFUSES)), list[str]()
    running = list[ManagedProcess]()
    deployment = Deployment(
        read_manifest(trial.folder.plan),
        NodeAddresses(("gb01",) * 3, ("127.0.0.1",) * 3),
        ChildProcessLauncher(tmp_path),
        running,
        plan=trial.folder.plan,
        raw=trial.attempt,
    )
    for worker in deployment.workers():
        deployment.start(worker)
    require_accepted_arguments(deployment, said.append)
    assert said == []
    stop_in_order(running, 5.0, said.append)
