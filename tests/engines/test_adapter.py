"""Add an engine by an adapter and a line in each of two tables: engines and settings.

Its only program is a fake of Dynamo.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import support
from support.fake_deployment import free_ports
from support.other_engine import OtherEngine

from tune.backends.local import LocalBackend
from tune.config import compose_overrides
from tune.deploy.plan import render
from tune.engines.base import Components, EngineAdapter, WorkerGauges
from tune.engines.check import check, check_local
from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS
from tune.engines.registry import ENGINES, engine_of
from tune.errors import ConfigurationError
from tune.manifest.argument_check import Validators
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.process import Port, Process, ProcessRole
from tune.records.outcome import Outcome
from tune.spec import engine_settings
from tune.spec.findings import only_errors
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.identity import study_record
from tune.study.loop import open_study, run_trial

FAKE_DYNAMO = Path(support.__file__).with_name("fake_dynamo.py")
SERVERS = ("etcd", "frontend", "prefill_w0", "prefill_w1", "decode_w0")
QUERIES = 60


@dataclass(frozen=True)
class StandIn:
    """Adapt an engine whose processes are all one program, with a state folder and a port each."""

    root: Path
    ports: dict[str, int]

    settings = OtherEngine
    computes_tokens = True
    needs_scratch = False
    gauges = WorkerGauges()
    signals = EngineSignals(
        failure_patterns=("bad setting",),
        requests=REQUESTS,
        in_flight=IN_FLIGHT,
        frontend_in_flight=FRONTEND_IN_FLIGHT,
    )

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def options(self) -> Path:
        return self.root / "options"

    def check(self, spec: TrialSpec) -> tuple[()]:
        return ()

    def kv_capacity_tokens(self, *_: object) -> int:
        return 1_000_000

    def recommend(self, *_: object) -> tuple[()]:
        return ()

    def environment(self, *_: object) -> dict[str, str]:
        return {}

    def services(self, *_: object) -> tuple[Process, ...]:
        return (self._process("etcd", "etcd"),)

    def frontends(self, *_: object) -> tuple[Process, ...]:
        return (self._process("frontend", "frontend"),)

    def worker(self, spec: TrialSpec, facts: object, placed: Any) -> Process:
        return self._process(f"{placed.role}_w{placed.index}", placed.role)

    def components(self, spec: TrialSpec) -> Components:
        return Components("prefill", "backend")

    def validators(self, *_: object) -> Validators:
        return Validators({})

    def files(self, spec: TrialSpec) -> dict[str, str]:
        return {"stand_in.txt": f"{spec.prefill.token_budget}\n"}

    def tables(self, *_: object) -> dict[str, bytes]:
        return {}

    def _process(self, name: str, role: ProcessRole) -> Process:
        port = self.ports[name]
        argv = (sys.executable, str(FAKE_DYNAMO), str(self.state), "process", name, role, str(port))
        listens = (Port(port, f"stack.{name}_port"),)
        return Process(name, role, 0, (), {}, argv, f"logs/{name}.out", listens, port)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Put the adapter into the table of engines under the name stand_in, its settings into theirs."""
    adapter = StandIn(tmp_path, dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True)))
    for part in ("began", "registered"):
        (adapter.state / part).mkdir(parents=True)
    as_protocol: EngineAdapter = adapter
    for pool, ranks in (("prefill", 1), ("decode", 2)):
        option = adapter.options / pool / "stand_in.yaml"
        option.parent.mkdir(parents=True)
        option.write_text(
            f"ranks: {ranks}\nmax_num_seqs: 128\nmax_num_batched_tokens: 4096\nmax_model_len: 20192\n"
        )
    monkeypatch.setitem(ENGINES, "stand_in", as_protocol)
    monkeypatch.setattr(engine_settings, "SETTINGS_CLASSES", (*engine_settings.SETTINGS_CLASSES, OtherEngine))
    return adapter


def settings_of(adapter: StandIn) -> Settings:
    """Compose a trial of 60 queries in about a second, on four GPUs of one machine."""
    return compose_overrides(
        [
            *("cluster=local", "stack=dynamo_v1", "stack.engine=stand_in", "hardware.nodes=1"),
            *("prefill=stand_in", "decode=stand_in"),
            *("split.prefill_workers=2", "split.decode_workers=1"),
            *(f"stack.frontend_port={adapter.ports['frontend']}", "cluster.deadlines.stop_s=2.0"),
            *("load.target_qps=60.0", "load.min_duration_s=1.0", f"load.min_queries={QUERIES}"),
            *("load.concatenate_permutation=false", "load.request_timeout_s=20.0"),
            *("load.response_timeout_s=20.0", "load.dataset.inputs.mean_tokens=400.0"),
            *("load.dataset.inputs.kind=fixed", "load.dataset.inputs.sd_tokens=0.0"),
        ],
        [str(adapter.options)],
    ).settings


def outcome_of(adapter: StandIn, folder: Path, **behaviour: Any) -> Outcome:
    """Run a trial of the adapter's processes, which behave as `behaviour` says; return its outcome."""
    settings = settings_of(adapter)
    usual = {"unregistered": [], "ends": {}, "deaf": [], "leaves": [], "client": "waits", "holds_s": 0.0}
    usual |= {"one_engine_after": None, "silent": False, "late_after": None, "peers": adapter.ports}
    usual |= {"model": settings.model.served_name}
    (adapter.state / "behaviour.json").write_text(json.dumps(usual | behaviour))
    record = study_record(settings, "single-local", ())
    with (
        open_study(folder / "study", record) as study,
        LocalBackend(lambda line: None, lock=str(folder)) as backend,
    ):
        outcome, _ = run_trial(study, settings, backend, lambda spec: ())
    return outcome


@pytest.mark.slow
def test_an_adapter_in_the_table_runs_a_deployment_end_to_end(stand_in: StandIn, tmp_path: Path) -> None:
    outcome = outcome_of(stand_in, tmp_path)
    assert outcome.status == "measured", outcome.reason
    assert outcome.probes[0].queries == QUERIES
    assert outcome.probes[0].breakdown is not None, "its counters were read"
    (plan,) = (tmp_path / "study").glob("t*/plan")
    assert (plan / "stand_in.txt").read_text() == "4096\n"


@pytest.mark.slow
def test_a_failure_pattern_of_the_adapter_blames_the_configuration(stand_in: StandIn, tmp_path: Path) -> None:
    outcome = outcome_of(stand_in, tmp_path, ends={"prefill_w1": [1, "bad setting: nonsense"]})
    assert outcome.status == "infeasible"
    assert "bad setting: nonsense" in (outcome.reason or "")


def test_an_adapter_is_asked_for_rules_files_and_processes(stand_in: StandIn) -> None:
    settings = settings_of(stand_in)
    assert not only_errors(check(settings.trial_spec))
    assert not check_local(settings.trial_spec)
    plan = render(settings.trial_spec, settings.cluster)
    assert [process.name for process in plan.processes] == [*SERVERS, "client"]
    assert {"prefill.yaml", "decode.yaml"}.isdisjoint(plan.files)
    assert plan.readiness_command[-4:] == ("--expect", "prefill=2", "--expect", "backend=1")


def test_pools_are_read_in_the_settings_of_the_adapter(stand_in: StandIn) -> None:
    settings = settings_of(stand_in)
    assert isinstance(settings.prefill, OtherEngine)
    assert (settings.prefill.ranks, settings.decode.gpus) == (1, 2)
    recorded = settings.trial_spec.model_dump_json()
    assert TrialSpec.model_validate_json(recorded) == settings.trial_spec
    option = stand_in.options / "prefill" / "stand_in.yaml"
    option.write_text(option.read_text().replace("max_num_seqs: 128", "max_num_seqs: many"))
    with pytest.raises(ConfigurationError, match=r"prefill\.max_num_seqs: found 'many'"):
        settings_of(stand_in)


def test_an_engine_without_an_adapter_is_refused_with_the_table(
    make_spec: Callable[..., TrialSpec],
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"stack\.engine: found 'abacus', expected one of trtllm, dynamo"
    ):
        engine_of(make_spec(stack__engine="abacus"))
