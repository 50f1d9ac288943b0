"""Define the protocol of an inference engine.

EngineModel says what an engine is: its rules, its memory, what to change in its settings. EngineLauncher says
how its workers are launched behind Dynamo and what they show while they run. An EngineAdapter is both, and
tune/spec/engine_table.py names it, beside the class of its settings. An adapter holds no state: its results
depend on the arguments alone. It states what it has: a method with a body here returns what an engine without
that has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from tune.core.arrays import FloatArray
from tune.engines.key_shapes import KeyPlace, Shape
from tune.manifest.argument_check import Validators
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.process import Process
from tune.records.outcome import Recommendation
from tune.spec.cluster import Calibration, ClusterFacts
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.hardware import Hardware
from tune.spec.model import Model
from tune.spec.split import Role, WorkerPlacement
from tune.spec.step_table import Phase
from tune.spec.trial import TrialSpec

RemedyKind = Literal[
    "larger_worker",
    "smaller_workers",
    "larger_chunks",
    "smaller_chunks",
    "wider_batch",
    "fuller_batches",
    "more_kv_cache",
    "faster_transfers",
]


@dataclass(frozen=True)
class Remedy:
    """Name a change that would help, for an engine to say in its own settings.

    `larger_worker`: more GPUs for each worker of `role`. `smaller_workers`: fewer GPUs for each worker of
    both pools, so that fewer move from one pool to `role`. `larger_chunks`: more prompt tokens in a step.
    `smaller_chunks`: fewer, as answers wait for every step that reads prompts.
    `wider_batch`: up to `batch` sequences in a worker that decodes. `fuller_batches`: no policy that keeps
    decode batches small, no step longer than it needs to be; `batch` is the largest batch measured, None
    where unknown. `more_kv_cache`: room for more tokens in decode workers. `faster_transfers`: KV caches that
    reach the decode pool sooner.
    """

    kind: RemedyKind
    role: Role = "decode"
    batch: float | None = None


@dataclass(frozen=True)
class Histogram:
    """Name a histogram of /metrics; samples count that have all of `labels`, in SI units times `scale`."""

    name: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerMetrics:
    """Name what an engine's /metrics show, each in order of preference.

    Gauges: `running` sequences in the batch, `waiting` sequences before it, `kv_used` fraction of the KV
    cache, 0 to 1. Counter: `failed_transfers` of KV caches. Histograms: `transfer_s` and `transfer_bytes` of
    each KV transfer, `token_s` per output token, `request_s` from a request's arrival to its end.
    """

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    kv_used: tuple[str, ...] = ()
    failed_transfers: tuple[str, ...] = ()
    transfer_s: tuple[Histogram, ...] = ()
    transfer_bytes: tuple[Histogram, ...] = ()
    token_s: tuple[Histogram, ...] = ()
    request_s: tuple[Histogram, ...] = ()

    def __or__(self, other: WorkerMetrics) -> WorkerMetrics:
        """Return the names of both, each once, those of `self` first."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return WorkerMetrics(*(own + tuple(name for name in more if name not in own) for own, more in pairs))


@dataclass(frozen=True, eq=False)
class StepTiming:
    """Hold the seconds of a worker's steps, as the simulator has them.

    A step of a prefill worker takes prefill_step + prefill_token x new tokens + prefill_pair x attended
    pairs. A decode worker that computes an evicted sequence again takes as much with recompute_*. A decode
    step of b sequences takes decode_batch[b] + decode_context_token x tokens of all contexts; decode_batch
    has the shape (largest batch + 1,).
    """

    prefill_step_s: float
    prefill_token_s: float
    prefill_pair_s: float
    recompute_step_s: float
    recompute_token_s: float
    recompute_pair_s: float
    decode_batch_s: FloatArray
    decode_context_token_s: float


class LoggedStep(NamedTuple):
    """Hold one step of a worker, as its log has it.

    `phase` is None of a step that both reads prompts and continues answers. `new_tokens` are those that the
    step computes, `context_tokens` those in the caches of its sequences before it, None where the log does
    not say.
    """

    phase: Phase | None
    batch: int
    new_tokens: int
    context_tokens: int | None
    elapsed_s: float


TimeSteps = Callable[[TrialSpec, Calibration], StepTiming]
"""Function that returns the simulator's step times of a trial's workers."""


class EngineModel(Protocol):
    """Describe an engine."""

    @property
    def computes_tokens(self) -> bool:
        """Return whether answers are a model's, computed on GPUs."""

    @property
    def metrics(self) -> WorkerMetrics:
        """Return the names of the metrics of its workers."""
        return WorkerMetrics()

    @property
    def versions(self) -> Mapping[str, str]:
        """Return the engine and its versions that go with each generation of Dynamo, by the generation."""

    @property
    def package(self) -> str:
        """Return the distribution that holds its workers, under which nodes report its version."""

    def check(self, spec: TrialSpec) -> Iterable[Finding]:
        """Yield every rule of the engine that `spec` breaks, and every choice that costs something."""
        return ()

    def kv_capacity_tokens(self, model: Model, hardware: Hardware, engine: Engine) -> int:
        """Return the tokens of KV cache that one worker holds, in whole blocks; 0 where no memory is left."""

    def read_steps(self, lines: Iterable[str]) -> Iterable[LoggedStep]:
        """Return the steps in the log of one worker, in their order; none in other lines."""
        return ()

    def recommend(self, spec: TrialSpec, remedy: Remedy) -> Iterable[Recommendation]:
        """Yield the settings of the engine that apply `remedy` to `spec`; none where it has none."""
        return ()


class EngineLauncher(Protocol):
    """Launch an engine's workers behind Dynamo.

    Methods raise ConfigurationError for a trial that cannot be launched.
    """

    @property
    def needs_scratch(self) -> bool:
        """Return whether its processes use the placeholder SCRATCH_DIR, which a container then mounts."""
        return False

    @property
    def signals(self) -> EngineSignals:
        """Return what the logs and metrics of its workers mean."""

    @property
    def overridable(self) -> frozenset[str]:
        """Return the variables that it sets and a user may set otherwise: nothing depends on their values."""
        return frozenset()

    @property
    def image_steps(self) -> str | None:
        """Return the steps in bash that build an image of Dynamo and the engine; None where none are known.

        They read DYNAMO_COMMIT, ENGINE_COMMIT, PLATFORM, IMAGE and SQUASH_FILE.
        """
        return None

    def environment(self, spec: TrialSpec, facts: ClusterFacts) -> dict[str, str]:
        """Return the variables that frontends and workers share."""

    def services(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return what must answer before anything of Dynamo starts, in the order in which it starts."""

    def frontends(self, spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
        """Return the OpenAI endpoints, the first on the head node."""

    def worker(self, spec: TrialSpec, facts: ClusterFacts, placed: WorkerPlacement) -> Process:
        """Return the process of one worker, on the GPUs that `placed` gives it."""

    def start_gap_s(self, spec: TrialSpec) -> float:
        """Return the seconds between the starts of two workers that share a node; 0 where none are needed."""
        return 0.0

    def components(self, spec: TrialSpec) -> Mapping[Role, str]:
        """Return the name under which the workers of each role register, or several between commas."""

    def files(self, spec: TrialSpec) -> Mapping[str, str]:
        """Return the texts that the workers read, by file name in the plan."""
        return {}

    def validators(self, spec: TrialSpec, facts: ClusterFacts) -> Validators:
        """Return what in the engine's own software validates the command lines and files of `spec`."""
        return Validators({})

    def tables(self, spec: TrialSpec, facts: ClusterFacts, time_steps: TimeSteps) -> Mapping[str, bytes]:
        """Return the binary files that the workers read, by file name in the plan."""
        return {}


@runtime_checkable
class EngineAdapter(EngineModel, EngineLauncher, Protocol):
    """Provide all that tune needs of an engine."""


@runtime_checkable
class EngineFileReader(Protocol):
    """Read what others give an engine, the keys of its file or its arguments, as settings.

    Only an engine with a `recipe_name` in the table of engines has these methods. `has_file` says whether its
    workers read their keys from a file, ROLE.yaml of a plan.
    """

    @property
    def has_file(self) -> bool:
        """Return whether workers read the keys from a file; otherwise they are arguments."""

    @property
    def rank_launcher(self) -> str | None:
        """Return the program, before the interpreter, that starts a worker's ranks; None without one."""

    @property
    def launch_variables(self) -> frozenset[str]:
        """Return the variables by which workers find their file and each other; each launcher has its own."""

    def keys_of_words(self, role: Role, words: Sequence[str]) -> dict[str, Any]:
        """Return the keys that the words of a worker's command line state, without those of the deployment.

        Raises ValueError, with the option and its value, for one that is no number where the engine has one.
        """

    def keys_of_worker(self, files: Mapping[str, str], worker: Process) -> dict[str, Any]:
        """Return the keys that a worker of a plan starts with; `files` are those of the plan."""

    def misshapen_key(self, keys: Mapping[str, Any]) -> tuple[KeyPlace, Shape] | None:
        """Return a key whose value the methods below cannot read, and what they expect; None without one."""

    def generation_of_keys(self, keys: Mapping[str, Any]) -> str:
        """Return the generation of an engine's file, a value of `stack.engine_yaml`."""

    def settings_of_keys(
        self, role: Role, keys: Mapping[str, Any], context_tokens: int | None
    ) -> dict[str, Any]:
        """Return the settings of a pool, not validated; `context_tokens` is the model's longest sequence."""

    def comparable_keys(self, role: Role, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of a file in a form in which equal configurations are equal."""

    def longest_prompt_of_keys(self, keys: Mapping[str, Any]) -> float:
        """Return the most tokens of a prompt that a prefill worker with these keys takes."""

    def gpus_of_keys(self, keys: Mapping[str, Any]) -> int:
        """Return the GPUs of a worker."""
