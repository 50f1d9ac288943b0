"""Add an engine by one line of the table of engines, which leads to support/other_engine.py.

Its only program is a fake of Dynamo.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.other_engine import REFERENCE, OtherEngine
from support.ports import free_ports

from tune.backends.local import LocalBackend
from tune.config import compose_overrides
from tune.deploy.plan import render
from tune.engines.check import check, check_local
from tune.errors import ConfigurationError
from tune.records.outcome import Outcome
from tune.spec.bind import bind_point
from tune.spec.engine_table import ENGINES
from tune.spec.findings import only_errors
from tune.spec.settings import Settings
from tune.spec.space import IntDimension, Sweep
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.loop import open_study, run_trial

SERVERS = ("etcd", "frontend", "prefill_w0", "prefill_w1", "decode_w0")
QUERIES = 60
POOL = (
    "ranks: {ranks}\nmax_num_seqs: 128\nmax_num_batched_tokens: 4096\nmax_model_len: 20192\nports: {ports}\n"
)
STACK = """
name: dynamo_v1_stand_in
engine: stand_in
engine_yaml: flags
router_mode: round-robin
frontend_port: {frontend}
etcd_client_port: {etcd}
etcd_peer_port: 2380
nats_port: 4222
system_port: null
env: {{}}
"""


@dataclass(frozen=True)
class StandInFolders:
    """Hold the options of a user's configuration folder, and the state of the fake programs."""

    options: Path
    state: Path

    def write_option(self, name: str, text: str) -> None:
        path = self.options / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def settings(self, *further: str) -> Settings:
        """Compose a trial of 60 queries in about a second, on four GPUs of one machine."""
        return compose_overrides(
            [
                *("cluster=local", "stack=stand_in", "prefill=stand_in", "decode=stand_in"),
                *("hardware.nodes=1", "split.prefill_workers=2", "split.decode_workers=1"),
                *(f"cluster.model_path={self.state}", "cluster.deadlines.stop_s=2.0"),
                *("load.target_qps=60.0", "load.min_duration_s=1.0", f"load.min_queries={QUERIES}"),
                *("load.concatenate_permutation=false", "load.request_timeout_s=20.0"),
                *("load.response_timeout_s=20.0", "load.dataset.inputs.mean_tokens=400.0"),
                *("load.dataset.inputs.kind=fixed", "load.dataset.inputs.sd_tokens=0.0"),
                *further,
            ],
            [str(self.options)],
        ).settings


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInFolders:
    """Put the engine into the table under the name stand_in, and its options into a folder."""
    monkeypatch.setitem(ENGINES, "stand_in", REFERENCE)
    folders = StandInFolders(tmp_path / "options", tmp_path / "state")
    for part in ("began", "registered"):
        (folders.state / part).mkdir(parents=True)
    etcd, frontend, *workers = free_ports(len(SERVERS))
    folders.write_option("stack/stand_in", STACK.format(etcd=etcd, frontend=frontend))
    folders.write_option("prefill/stand_in", POOL.format(ranks=1, ports=workers[:2]))
    folders.write_option("decode/stand_in", POOL.format(ranks=2, ports=workers[2:]))
    return folders


def outcome_of(folders: StandInFolders, folder: Path, **behaviour: Any) -> Outcome:
    """Run a trial of the fake processes, which behave as `behaviour` says; return its outcome."""
    settings = folders.settings()
    usual = {"client": "waits", "model": settings.model.served_name}
    (folders.state / "behaviour.json").write_text(json.dumps(usual | behaviour))
    record = study_record(settings, "single-local", ())
    with (
        open_study(folder / "study", record) as study,
        LocalBackend(lambda line: None, lock=str(folder)) as backend,
    ):
        outcome, _ = run_trial(study, settings, backend, lambda spec: ())
    return outcome


@pytest.mark.slow
def test_an_engine_of_the_table_runs_a_deployment_end_to_end(folders: StandInFolders, tmp_path: Path) -> None:
    outcome = outcome_of(folders, tmp_path)
    assert outcome.status == "measured", outcome.reason
    assert outcome.probes[0].queries == QUERIES
    assert outcome.probes[0].breakdown is not None, "its counters were read"
    (plan,) = (tmp_path / "study").glob("t*/plan")
    assert (plan / "stand_in.txt").read_text() == "4096\n"


@pytest.mark.slow
def test_a_failure_pattern_of_the_adapter_blames_the_configuration(
    folders: StandInFolders, tmp_path: Path
) -> None:
    outcome = outcome_of(folders, tmp_path, ends={"prefill_w1": [1, "bad setting: nonsense"]})
    assert outcome.status == "infeasible"
    assert "bad setting: nonsense" in (outcome.reason or "")


def test_an_adapter_is_asked_for_rules_files_and_processes(folders: StandInFolders) -> None:
    settings = folders.settings()
    assert not only_errors(check(settings.trial_spec))
    assert not check_local(settings.trial_spec)
    plan = render(settings.trial_spec, settings.cluster)
    assert [process.name for process in plan.processes] == [*SERVERS, "client"]
    assert {"prefill.yaml", "decode.yaml"}.isdisjoint(plan.files)
    assert plan.readiness_command[-4:] == ("--expect", "prefill=2", "--expect", "backend=1")


def test_an_adapter_says_which_of_its_variables_may_be_set(folders: StandInFolders) -> None:
    settings = folders.settings("+prefill.env.STAND_IN_LOG=loud")
    worker = render(settings.trial_spec, settings.cluster).processes[2]
    assert worker.env["STAND_IN_LOG"] == "loud"
    refused = folders.settings("+prefill.env.STAND_IN_STATE=/tmp")
    with pytest.raises(ConfigurationError, match=r"prefill\.env\.STAND_IN_STATE: found '/tmp', expected no"):
        render(refused.trial_spec, refused.cluster)


def test_the_stack_decides_which_class_reads_the_pools(folders: StandInFolders) -> None:
    spec = folders.settings().trial_spec
    assert isinstance(spec.prefill, OtherEngine)
    assert (spec.prefill.ranks, spec.decode.gpus) == (1, 2)
    assert TrialSpec.model_validate_json(spec.model_dump_json()) == spec
    assert TrialSpec.model_validate(spec.model_dump()) == spec
    assert '"max_num_seqs":128' in spec.canonical()
    sweep = Sweep(
        question="how many sequences?",
        n_trials=2,
        space={"seqs": IntDimension(kind="int", path="decode.max_num_seqs", low=1, high=9, step=1)},
    )
    bound = bind_point(spec, sweep, {"seqs": 7})
    assert isinstance(bound.decode, OtherEngine)
    assert bound.decode.max_num_seqs == 7


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("prefill.max_num_seqs=many",), r"prefill\.max_num_seqs: found 'many'; expected a valid integer"),
        (("+decode.max_batch_size=3",), r"decode\.max_batch_size: no such setting"),
        (
            ("stack.engine_yaml=nested",),
            r"stack\.engine_yaml: found 'nested'; expected flags with stack\.engine=stand_in",
        ),
        (
            ("decode=continuous", "prefill.ranks=no"),
            r"prefill\.ranks: found 'no'; .*\n"
            r"  decode: found settings of another engine; expected those of stack\.engine=stand_in \(ranks, ",
        ),
    ],
)
def test_a_fault_is_named_in_the_words_of_the_engine(
    folders: StandInFolders, further: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        folders.settings(*further)


def test_an_engine_that_is_not_in_the_table_is_refused_with_the_table() -> None:
    message = (
        r"stack\.engine: found 'abacus'; expected one of trtllm, dynamo_mocker, dynamo_vllm\. Choose one of "
        r"them, or a stack of conf/stack\.\n  load\.target_qps: found -1; expected greater than 0\.$"
    )
    with pytest.raises(ConfigurationError, match=message):
        compose_overrides(["stack.engine=abacus", "load.target_qps=-1"])
