"""Define what tune asks of an inference engine.

EngineModel says what an engine is: its rules, its memory, what to change in its settings. EngineLauncher says
how its workers are launched behind Dynamo and what they show while they run. An EngineAdapter is both, and
registry.py names it. An adapter holds no state: every answer depends on the arguments alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from tune.core.arrays import FloatArray
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.process import Process
from tune.records.outcome import Recommendation
from tune.spec.cluster import Calibration, ClusterFacts
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.model import Model
from tune.spec.split import Role, WorkerPlacement
from tune.spec.trial import TrialSpec

RemedyKind = Literal[
    "larger_worker", "larger_chunks", "wider_batch", "fuller_batches", "more_kv_cache", "faster_transfers"
]


@dataclass(frozen=True)
class Remedy:
    """Name a change that would help, for an engine to say in its own settings.

    `larger_worker`: more GPUs for each worker of `role`. `larger_chunks`: more prompt tokens a prefill step.
    `wider_batch`: up to `batch` sequences a decode worker. `fuller_batches`: nothing that keeps decode batches
    small or their steps long; `batch` is the largest one seen, None where unknown. `more_kv_cache`: room for
    more tokens in decode workers. `faster_transfers`: KV caches that reach the decode pool sooner.
    """

    kind: RemedyKind
    role: Role = "decode"
    batch: float | None = None


@dataclass(frozen=True)
class WorkerGauges:
    """Name the gauges of an engine's /metrics, each in order of preference.

    `running`: sequences in the batch. `kv_used`: used fraction of the KV cache, 0 to 1.
    """

    running: tuple[str, ...] = ()
    kv_used: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class StepTiming:
    """Hold the seconds of a worker's steps, as the simulator has them.

    A prefill step takes step + token x new tokens + pair x attended pairs, in a prefill worker or, where a
    decode worker computes an evicted sequence again, in that. A decode step of b sequences takes
    `decode_batch_s[b]` (shape (batches + 1,)) + `decode_context_token_s` x tokens of all contexts.
    """

    prefill_step_s: float
    prefill_token_s: float
    prefill_pair_s: float
    recompute_step_s: float
    recompute_token_s: float
    recompute_pair_s: float
    decode_batch_s: FloatArray
    decode_context_token_s: float


TimeSteps = Callable[[TrialSpec, Calibration], StepTiming]
"""The simulator's step times of a trial's workers."""


@dataclass(frozen=True)
class Components:
    """Hold the names under which workers of each pool register with Dynamo; several are separated by commas."""

    prefill: str
    decode: str


class EngineModel(Protocol):
    """Say what an engine is.

    `settings` is the class of settings that it reads. `computes_tokens` is False for engines that compute
    nothing: they take no GPU, and their answers are no model's. `gauges` names what its workers measure.
    """

    @property
    def settings(self) -> type[Engine]: ...

    @property
    def computes_tokens(self) -> bool: ...

    @property
    def gauges(self) -> WorkerGauges: ...

    def check(self, spec: TrialSpec) -> Iterable[Finding]:
        """Yield every rule of the engine that `spec` breaks, and every choice that costs something."""

    def kv_capacity_tokens(self, model: Model, hardware: Hardware, engine: Engine) -> int:
        """Return the tokens of KV cache that one worker holds, in whole blocks; 0 where nothing is left."""

    def recommend(self, spec: TrialSpec, remedy: Remedy) -> Iterable[Recommendation]:
        """Yield the settings of the engine that bring `remedy` about in `spec`; nothing where there are none."""


class EngineLauncher(Protocol):
    """Say how an engine's workers are launched behind Dynamo. Methods raise ConfigurationError for what cannot be.

    `needs_scratch` says whether its processes use the placeholder SCRATCH_DIR, which a container then mounts.
    """

    @property
    def needs_scratch(self) -> bool: ...

    @property
    def signals(self) -> EngineSignals: ...

    def environment(self, spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
        """Return the variables that frontend and workers share."""

    def services(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return what must answer before anything of Dynamo starts, in the order in which it starts."""

    def frontend(self, spec: TrialSpec, facts: ClusterFacts) -> Process:
        """Return the OpenAI endpoint, on the head node."""

    def worker(self, spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
        """Return the process of one worker, on the GPUs that `placed` gives it."""

    def components(self, spec: TrialSpec) -> Components:
        """Return the names under which the workers register."""

    def files(self, spec: TrialSpec) -> Mapping[str, str]:
        """Return the texts that the workers read, by file name in the plan."""

    def tables(self, spec: TrialSpec, facts: ClusterFacts, time_steps: TimeSteps) -> Mapping[str, bytes]:
        """Return the binary files that the workers read, by file name in the plan."""


class EngineAdapter(EngineModel, EngineLauncher, Protocol):
    """Say all that tune asks of an engine."""
