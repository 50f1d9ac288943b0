"""Provide an engine that tune does not have: its settings, and an adapter that starts stand-ins.

One line of the table of engines leads to it: `ENGINES["stand_in"] = REFERENCE`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, cast, final

from tune.engines.base import EngineAdapter
from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.process import Port, Process, ProcessRole
from tune.spec.cluster import ClusterFacts
from tune.spec.engine import Engine, Meaning, SettingName
from tune.spec.engine_table import EngineReference
from tune.spec.failure import FailureRule
from tune.spec.split import Role, WorkerPlacement
from tune.spec.trial import TrialSpec

REFERENCE = EngineReference("support.other_engine:OtherEngine", "support.other_engine:StandIn")
BAD_SETTING = FailureRule(
    name="bad_setting",
    pattern="bad setting",
    cause="configuration",
    meaning="the stand-in refuses a setting",
    next_step="Change it.",
    source="tests/support/fake_dynamo.py",
)
FAKE_DYNAMO = Path(__file__).with_name("fake_dynamo.py")


class OtherEngine(Engine):
    """Hold the settings of an engine under names that TensorRT-LLM does not have."""

    KEYS: ClassVar[Mapping[SettingName, str]] = {
        "tensor_parallel": "ranks",
        "max_sequences": "max_num_seqs",
        "token_budget": "max_num_batched_tokens",
        "max_sequence_tokens": "max_model_len",
        "graph_batch_sizes": "graphs",
    }
    MEANINGS: ClassVar[Mapping[str, Meaning]] = {
        "ranks": ("GPUs", "GPUs of a worker."),
        "max_num_seqs": ("sequences", "Most sequences in a step."),
        "max_num_batched_tokens": ("tokens", "Most tokens in a step."),
        "max_model_len": ("tokens", "Longest prompt and answer together."),
        "graphs": ("sequences", "Batch sizes with a CUDA graph."),
        "ports": ("port", "Port of each worker of the pool."),
    }
    GENERATIONS: ClassVar[tuple[str, ...]] = ("flags",)

    ranks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    graphs: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()

    loads_weights = property(lambda self: False)
    kv_dtype = property(lambda self: "fp8")
    kv_block_tokens = property(lambda self: 32)
    batching = property(lambda self: "reserve_answers")
    chunks_prompts = property(lambda self: True)
    overlaps_host_work = property(lambda self: True)
    graph_batch_sizes = property(lambda self: self.graphs)


@final
class StandIn(EngineAdapter):
    """Adapt an engine whose processes are all fake_dynamo.py, with the folder of the model as their state."""

    computes_tokens = True
    package = "other-engine"
    versions = MappingProxyType({"dynamo_v1": "a stand-in"})
    signals = EngineSignals(
        failure_rules=(BAD_SETTING,),
        requests=REQUESTS,
        in_flight=IN_FLIGHT,
        frontend_in_flight=FRONTEND_IN_FLIGHT,
    )
    overridable = frozenset({"STAND_IN_LOG"})

    def kv_capacity_tokens(self, *_: object) -> int:
        return 1_000_000

    def environment(self, spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
        return {"STAND_IN_LOG": "quiet", "STAND_IN_STATE": facts.model_path}

    def services(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        return (self._process(spec, facts, "etcd", "etcd", spec.stack.etcd_client_port),)

    def frontends(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        return (self._process(spec, facts, "frontend", "frontend", spec.stack.frontend_port),)

    def worker(self, spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
        port = cast("OtherEngine", spec.engine(placed.role)).ports[placed.index]
        return self._process(spec, facts, f"{placed.role}_w{placed.index}", placed.role, port)

    def components(self, spec: TrialSpec) -> Mapping[Role, str]:
        return {"prefill": "prefill", "decode": "backend", "aggregated": "backend"}

    def files(self, spec: TrialSpec) -> dict[str, str]:
        return {"stand_in.txt": f"{spec.prefill.token_budget}\n"}

    def _process(
        self, spec: TrialSpec, facts: ClusterFacts, name: str, role: ProcessRole, port: int
    ) -> Process:
        argv = (sys.executable, str(FAKE_DYNAMO), facts.model_path, "process", name, role, str(port))
        listens = (Port(port, f"stack.{name}_port"),)
        return Process(
            name, role, 0, (), self.environment(spec, facts), argv, f"logs/{name}.out", listens, port
        )
