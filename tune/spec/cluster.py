"""Where a trial runs. Not part of a trial's identity, pinned per study."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from tune.spec.base import FrozenModel, NonNegativeFloat, PositiveFloat, PositiveInt
from tune.spec.slurm_time import duration_s


def _minutes_as_text(value: object) -> object:
    """Return whole minutes as text: YAML and Hydra read a time limit such as 90 as a number."""
    return str(value) if type(value) is int and value >= 0 else value


def _checked_duration(text: str) -> str:
    if duration_s(text) is None:
        raise ValueError(
            "expected one of Slurm's times: minutes, minutes:seconds, hours:minutes:seconds, days-hours, "
            "days-hours:minutes or days-hours:minutes:seconds"
        )
    return text


TimeLimit = Annotated[str, BeforeValidator(_minutes_as_text), AfterValidator(_checked_duration)]
"""A time limit in any form that sbatch accepts for --time, apart from those without an end."""


class Calibration(FrozenModel):
    """What makes the simulated rack resemble a real one. Origins: conf/cluster/sim.yaml.

    `ttft_overhead_s` passes before a request reaches its prefill worker; `frontend_message_s` is the
    frontend's time for each streamed message. `kv_transfer_bytes_per_s` is that of one GPU's link.
    Hypotheses, off at 1 and 0: `last_decode_worker_scale` slows the steps of the last decode worker,
    `head_node_scale` those of workers on the node of frontend and client, `large_batch_weight_reads` is how
    often decode steps above 128 sequences read the weights once more.
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


class Deadlines(FrozenModel):
    """How long a deployment may take. `quiet_s`: while it starts, without any progress (a process that
    listens, a worker that registers, a log that grows); `ready_s`: to be ready, progress or not; `stop_s`:
    to end once told to, before it is killed."""

    quiet_s: PositiveFloat
    ready_s: PositiveFloat
    stop_s: PositiveFloat


class ClusterFacts(FrozenModel):
    """Facts of one cluster: what sbatch and the container need, and how the rack is calibrated where its step
    times are a model's. Documented example: conf/cluster/facts/gb200_rack.yaml.

    `gpus_per_node_option`: GPUs are generic resources, and job and workers ask for them. `signal_s`: so long
    before its time limit a job is told to stop. `container_*` concern the steps of a job that run in
    `container_image`, none without one; `container_keep`: it is unpacked once a process and node of a job,
    not once a trial. `dynamo_venv`: the virtual environment that holds Dynamo, None where the PATH of its
    processes (that of an image, say) leads to a python3 that has it.
    """

    kind: Literal["sim", "local", "slurm"]
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
    model_path: str
    dynamo_venv: str | None
    extra_sbatch: tuple[str, ...]
    deadlines: Deadlines
    calibration: Calibration | None
    processes: PositiveInt | None

    @model_validator(mode="after")
    def _simulated_as_calibrated(self) -> Self:
        if self.kind == "sim" and self.calibration is None:
            raise ValueError("the simulated rack needs its calibration (conf/cluster/sim.yaml)")
        return self
