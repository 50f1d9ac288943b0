"""Adapt Dynamo's mock engines, which stand for TensorRT-LLM workers and read their settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import final

from tune.engines.base import EngineAdapter, Remedy, TimeSteps
from tune.engines.dynamo.counters import FRONTEND_IN_FLIGHT, IN_FLIGHT, REQUESTS, SGLANG_METRICS, VLLM_METRICS
from tune.engines.dynamo.dynamo_environment import OVERRIDABLE
from tune.engines.dynamo.dynamo_frontends import FRONTEND_PARSERS, PACKAGE
from tune.engines.dynamo_mocker.mock_processes import (
    mock_calibration,
    mock_env,
    mock_frontends,
    mock_services,
    mock_worker,
)
from tune.engines.dynamo_mocker.mock_rules import check_mocked
from tune.engines.dynamo_mocker.step_time_tables import step_times
from tune.engines.trtllm.adapter import FAILURE_RULES, METRICS, check_trtllm
from tune.engines.trtllm.engine_pools import trtllm_settings
from tune.engines.trtllm.gpu_memory import trtllm_kv_capacity_tokens
from tune.engines.trtllm.trtllm_remedies import trtllm_recommendations
from tune.manifest.argument_check import Validators
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.process import Process
from tune.records.outcome import Recommendation
from tune.spec.cluster import ClusterFacts
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.model import Model
from tune.spec.split import GENERATES_ANSWERS, Role, WorkerPlacement
from tune.spec.timed_rules import check_timed
from tune.spec.trial import TrialSpec

MOCK_METRICS = METRICS | VLLM_METRICS | SGLANG_METRICS
"""Metrics of mock engines, which have those of the engine whose scheduler they imitate: TensorRT-LLM, vLLM or
SGLang. Source: mock engines of Dynamo 1.6.1, whose prefill workers have none."""


@final
class DynamoMocker(EngineAdapter):
    """Adapt the mock engines of Dynamo 1.6, each with the KV cache of a TensorRT-LLM worker."""

    computes_tokens = False
    needs_scratch = True
    metrics = MOCK_METRICS
    package = PACKAGE
    versions = MappingProxyType({"dynamo_v1": "its mock engines"})
    signals = EngineSignals(
        failure_rules=FAILURE_RULES,
        requests=REQUESTS,
        in_flight=IN_FLIGHT,
        frontend_in_flight=FRONTEND_IN_FLIGHT,
    )
    overridable = OVERRIDABLE

    def check(self, spec: TrialSpec) -> Iterator[Finding]:
        """Yield the rules of TensorRT-LLM that `spec` breaks, then those of mock engines."""
        yield from check_trtllm(spec, reads_yaml=False)
        yield from check_mocked(spec)
        yield from check_timed(spec)

    def kv_capacity_tokens(self, model: Model, hardware: Hardware, engine: Engine) -> int:
        """Return the tokens of KV cache of the worker that a mock engine stands for."""
        return trtllm_kv_capacity_tokens(model, hardware, trtllm_settings(engine))

    def recommend(self, spec: TrialSpec, remedy: Remedy) -> Iterable[Recommendation]:
        """Yield the settings of TensorRT-LLM that apply `remedy`."""
        return trtllm_recommendations(spec, remedy)

    def environment(self, spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
        """Return the variables that frontend and mock engines share."""
        return mock_env(spec)

    def services(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return etcd and NATS."""
        return mock_services(spec, facts)

    def frontends(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return Dynamo's OpenAI endpoints."""
        return mock_frontends(spec, facts)

    def worker(self, spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
        """Return one mock engine, on the first node of the worker that it stands for."""
        cache_tokens = self.kv_capacity_tokens(spec.model, spec.hardware, spec.engine(placed.role))
        return mock_worker(spec, facts, placed, cache_tokens)

    def components(self, spec: TrialSpec) -> Mapping[Role, str]:
        """Return the names under which mock engines register. Source: Dynamo 1.6.1, mocker/args.py."""
        return {"prefill": "prefill", **dict.fromkeys(GENERATES_ANSWERS, "backend,tensorrt_llm")}

    def validators(self, spec: TrialSpec, facts: ClusterFacts) -> Validators:
        """Return Dynamo's parsers. Source: Dynamo 1.6.1, components/src/dynamo/mocker/args.py."""
        parsers: dict[str, tuple[str, ...]] = {"dynamo.mocker": ("dynamo.mocker.args:parse_args",)}
        return Validators(FRONTEND_PARSERS | parsers, packages=(PACKAGE,))

    def tables(self, spec: TrialSpec, facts: ClusterFacts, time_steps: TimeSteps) -> Mapping[str, bytes]:
        """Return the table of step times of each pool."""
        timing = time_steps(spec, mock_calibration(facts))
        cache_tokens = self.kv_capacity_tokens(spec.model, spec.hardware, spec.decode)
        return step_times(spec, timing, cache_tokens)
