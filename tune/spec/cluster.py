"""Hold where a trial runs. It is no part of a trial's identity; a study has one cluster."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tune.spec.backend_kinds import BackendName
from tune.spec.base import FrozenModel, NonNegativeFloat, PositiveFloat, PositiveInt, SparseModel
from tune.spec.draft_acceptance import Acceptance
from tune.spec.environment import CommandWords, Environment
from tune.spec.slurm_time import time_limit_s
from tune.spec.step_table import DecodeRows, Phase, PrefillRows

_DEFAULT_MPI = "pmix"


def _minutes_as_text(value: object) -> object:
    """Return whole minutes as text: YAML and Hydra read a time limit such as 90, or -1, as a number."""
    return str(value) if type(value) is int else value


def _checked_duration(text: str) -> str:
    if time_limit_s(text) is None:
        raise ValueError(
            "expected one of Slurm's times: minutes, minutes:seconds, hours:minutes:seconds, days-hours, "
            "days-hours:minutes or days-hours:minutes:seconds, or UNLIMITED"
        )
    return text


TimeLimit = Annotated[str, BeforeValidator(_minutes_as_text), AfterValidator(_checked_duration)]
"""A time limit in any form that sbatch accepts for --time."""


def _plain_program(path: str) -> str:
    if not re.fullmatch(r"/[\w./+@=-]+", path):
        raise ValueError(
            "expected the absolute path of a Python on the nodes, without spaces and quotes, such as "
            "/shared/tune-aarch64/bin/python3"
        )
    return path


NodePython = Annotated[str, AfterValidator(_plain_program)]
"""Path of an interpreter as the nodes see it; it stands in shell scripts."""


def _host_list(name: str) -> str:
    if not re.fullmatch(r"[\w.-]+(\[[\d,-]+\])?", name):
        raise ValueError(
            "expected the name of a node, or nodes as Slurm writes them, such as g07 or g[07-09]"
        )
    return name


RankRouter = Literal["fewest_tokens", "fewest_requests", "round_robin"]
"""What decides which rank of a worker serves a request."""


class Calibration(SparseModel):
    """Hold the parameters that make the simulator resemble a real rack. Origins: conf/cluster/sim.yaml.

    `ttft_overhead_s` passes before a request reaches its prefill worker. `frontend_message_s` is the
    frontend's time for each streamed message. `kv_transfer_bytes_per_s` is the rate of one GPU's link.

    Three parameters are hypotheses, off at 1, 1 and 0. `last_decode_worker_scale` multiplies the steps of the
    last decode worker, `head_node_scale` the steps of workers on the node of frontend and client.
    `large_batch_weight_reads` is how often decode steps above 128 sequences read the weights once more.

    `prefill_steps` and `decode_steps` are measured step times. A table holds whole steps: of the parameters
    above only the scales apply to them, and none of the overheads. `decode_step_gap_s` passes between two
    steps by a table of a decode or aggregated worker, unseen by the log that the table was made from. Each
    token of a KV cache that is sent holds up the steps of both its workers for `kv_stall_token_s`. Both are 0
    where they are None.

    With `step_source` aiconfigurator the steps of a phase without a table are sums of kernels that
    AIConfigurator measured (tune/sim/kernel_steps.py), for every shape of a pool; they are like those of a
    table. Where it is None, such steps are those of the roofline.

    `rank_router` is how a worker with attention data parallelism divides its requests among its ranks, by
    their prompts' tokens where it is None.

    `draft_acceptance` is the share of decode steps in which the draft token of depth 1, 2, ... is accepted,
    published shares where it is None. `draft_spread_frac` is the standard deviation over answers of the
    tokens that a step makes, as a share of their mean.
    """

    prefill_scale: PositiveFloat
    decode_scale: PositiveFloat
    ttft_overhead_s: NonNegativeFloat
    frontend_message_s: NonNegativeFloat
    kv_transfer_bytes_per_s: PositiveFloat
    kv_transfer_latency_s: NonNegativeFloat
    no_graph_overhead_s: NonNegativeFloat
    no_overlap_overhead_s: NonNegativeFloat
    last_decode_worker_scale: PositiveFloat
    head_node_scale: PositiveFloat
    large_batch_weight_reads: NonNegativeFloat
    bring_up_s: NonNegativeFloat
    prefill_steps: PrefillRows | None = None
    decode_steps: DecodeRows | None = None
    step_source: Literal["aiconfigurator"] | None = None
    decode_step_gap_s: NonNegativeFloat | None = None
    kv_stall_token_s: NonNegativeFloat | None = None
    rank_router: RankRouter | None = None
    draft_acceptance: Acceptance | None = None
    draft_spread_frac: NonNegativeFloat | None = None

    @property
    def has_tables(self) -> bool:
        """Return whether a table times the steps of a pool, of a file or of `step_source`."""
        return bool(self.prefill_steps or self.decode_steps or self.step_source)

    def has_table(self, phase: Phase) -> bool:
        """Return whether a table times the steps of a phase, of a file or of `step_source`."""
        return bool(self.step_source or (self.prefill_steps if phase == "prefill" else self.decode_steps))


class Deadlines(FrozenModel):
    """Limit how long a deployment may take.

    `quiet_s` limits the time without progress while it starts (a process that listens, a worker that
    registers, a worker's log that grows). `ready_s` limits the time until it is ready, with or without
    progress. `stop_s` limits the time from the request to end until a process is killed.
    """

    quiet_s: PositiveFloat
    ready_s: PositiveFloat
    stop_s: PositiveFloat


Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")]
"""A commit of git in hexadecimal digits: a branch would be another image every day."""


class ImageBuild(FrozenModel):
    """Define what action=image builds: Dynamo and its engine at two commits, for nodes of `platform`.

    `name` is that of the image in docker, without a tag.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._/-]*$")]
    dynamo_commit: Commit
    engine_commit: Commit
    platform: Literal["arm64", "amd64"]

    @property
    def tag(self) -> str:
        """Return name and tag in docker, which say what the image was built from."""
        return f"{self.name}:{self.dynamo_commit}-{self.engine_commit}-{self.platform}"


class CommandPrefix(FrozenModel):
    """Hold what stands before the command of a process, by its role, such as `numactl -m 0,1`."""

    prefill: CommandWords = ()
    decode: CommandWords = ()
    aggregated: Annotated[CommandWords, Field(exclude_if=lambda words: not words)] = ()
    frontend: CommandWords = ()


class ClusterFacts(FrozenModel):
    """Hold the facts of one cluster: what sbatch and the container need, and the simulator's calibration.

    A documented example is conf/cluster/facts/gb200_rack.yaml. With `gpus_per_node_option` GPUs are generic
    resources, and job and workers request them. `signal_s` is how long before its time limit a job is
    signalled to stop. `container_*` concern the steps of a job that run in `container_image`; without an
    image no step does. action=image makes it from what `image` says. With `container_keep` it is unpacked
    once for each process and node of a job, not once for each trial. `srun_env` reaches srun itself, where
    pyxis and enroot read it.
    `tokenizer` is the model's tokenizer.json where the load client runs, None for that in `model_path`.
    `dynamo_venv` is the virtual environment that holds Dynamo, None where the PATH of its processes (that of
    an image, say) leads to a python3 that has it. `python` is the interpreter on the nodes that has tune,
    None where it is that of this machine. Jobs avoid the nodes `exclude`. `srun_options` are further options
    of every step, `mpi` is what starts the ranks of a worker. Where workers share a node, each starts
    `load_stagger_s` after the one before, so that their weights are not read into its memory together.
    """

    kind: BackendName
    job_name: str
    partition: str | None
    account: str | None
    qos: str | None
    reservation: str | None
    time_limit: TimeLimit
    signal_s: PositiveInt
    exclusive: bool
    gpus_per_node_option: bool
    output: str
    container_image: str | None
    container_mounts: tuple[str, ...]
    container_workdir: str | None
    container_remap_root: bool
    container_mount_home: bool
    container_keep: bool
    srun_env: Environment
    srun_options: CommandWords = ()
    mpi: str = _DEFAULT_MPI
    command_prefix: CommandPrefix = CommandPrefix()
    load_stagger_s: NonNegativeFloat = 0.0
    image: ImageBuild | None = None
    model_path: str
    tokenizer: str | None = None
    dynamo_venv: str | None
    extra_sbatch: CommandWords
    python: NodePython | None = None
    exclude: tuple[Annotated[str, AfterValidator(_host_list)], ...] = ()
    deadlines: Deadlines
    calibration: Calibration | None
    processes: PositiveInt | None

    @property
    def launch_options(self) -> dict[str, str]:
        """Return prefixes and options of commands that are not the default ones, by their settings."""
        prefixes = {f"command_prefix.{role}": words for role, words in self.command_prefix}
        words = {**prefixes, "srun_options": self.srun_options}
        texts = {path: shlex.join(each) for path, each in words.items() if each}
        return texts if self.mpi == _DEFAULT_MPI else {**texts, "mpi": self.mpi}

    @property
    def tokenizer_path(self) -> str:
        """Return the tokenizer.json of the model where the load client runs."""
        return self.tokenizer or f"{self.model_path}/tokenizer.json"
