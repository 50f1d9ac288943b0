"""Test that every node reports while the arguments are checked, and that no hindrance ends an attempt."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.deployed import HOSTS, deployed_on_hosts
from support.fake_deployment import MARK, Trial
from support.waiting import wait_for

from tune.orchestrator import node_evidence
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.launcher import ChildProcessLauncher
from tune.orchestrator.managed_process import stop_in_order
from tune.orchestrator.node_evidence import collected_evidence
from tune.records.evidence import read_evidence


def reporting(*hosts: str) -> str:
    """Return Python that prints the reports of `hosts`."""
    facts = {"versions": {"engine": "1.3"}, "hardware": {}, "missing": {"UCX": "none"}}
    return "; ".join(
        f"print({json.dumps({'evidence': {'host': host, **facts}})!r}, flush=True)" for host in hosts
    )


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(tmp_path_factory.mktemp("trial"))


def asked(trial: Trial, code: str, python: str = sys.executable) -> Deployment:
    """Return a deployment whose nodes run the Python `code` to report of themselves."""
    return deployed_on_hosts(trial, "evidence", python, "-c", code)


def test_reports_are_kept_and_printed(trial: Trial, tmp_path: Path) -> None:
    said: list[str] = []
    with collected_evidence(asked(trial, reporting("g01", "g02")), tmp_path, said.append):
        assert read_evidence(tmp_path) is None
    evidence = read_evidence(tmp_path)
    assert evidence is not None
    assert evidence.nodes == HOSTS
    assert (evidence.versions, evidence.missing) == ({"engine": "1.3"}, {"UCX": "none"})
    assert said == ["versions found: engine 1.3; not known: UCX"]


def test_refused_configuration_is_on_record_with_the_software_that_refused(
    trial: Trial, tmp_path: Path
) -> None:
    deployment = asked(trial, reporting("g01", "g02"))
    with pytest.raises(AttemptFailed), collected_evidence(deployment, tmp_path, print):
        raise AttemptFailed("refused", "configuration")
    assert read_evidence(tmp_path) is not None
    deployment.require_alive()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit('no such container')", "it ended with exit code 1"),
        (f"{reporting('g01')}; import time; time.sleep(1000)", "no answer within 0.3 s"),
    ],
)
def test_node_without_a_report_is_named(
    code: str, reason: str, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_evidence, "LIMIT_S", 0.3 if "sleep" in code else 60.0)
    deployment, log = asked(trial, code), trial.attempt / "logs" / "evidence.out"
    monkeypatch.setenv(MARK, trial.mark)
    with collected_evidence(deployment, tmp_path, print):
        if "sleep" in code:
            wait_for(lambda: "}}" in log.read_text())
    evidence = read_evidence(tmp_path)
    assert evidence is not None
    silent = [text for name, text in evidence.missing.items() if name.startswith("report of ")]
    assert [reason in text for text in silent] == [True]
    assert not trial.alive()
    deployment.require_alive()


def test_missing_python_ends_no_attempt(trial: Trial, tmp_path: Path) -> None:
    said: list[str] = []
    with collected_evidence(asked(trial, "", "/no/python3"), tmp_path, said.append):
        pass
    assert read_evidence(tmp_path) is None
    assert "no evidence of the nodes: evidence could not be started" in said[0]


def test_workers_that_run_already_keep_the_evidence_of_their_start(trial: Trial, tmp_path: Path) -> None:
    deployment = asked(trial, reporting("g01", "g02"))
    with collected_evidence(deployment, trial.attempt, print):
        pass
    workers = [deployment.start(worker) for worker in deployment.workers()]
    before = asked(trial, "raise SystemExit('asked again')")
    again = Deployment(
        before.manifest,
        before.nodes,
        ChildProcessLauncher(tmp_path),
        workers,
        plan=trial.folder.plan,
        raw=tmp_path,
    )
    with collected_evidence(again, tmp_path, print):
        pass
    assert read_evidence(tmp_path) == read_evidence(trial.attempt)
    stop_in_order(workers, 5.0, print)
