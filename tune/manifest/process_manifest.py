"""Read and write `processes.json`: the processes of a plan, as data for an orchestrator."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from tune.errors import ResumableError
from tune.manifest.engine_signals import EngineSignals
from tune.manifest.expected_checkpoint import ExpectedCheckpoint
from tune.manifest.process import Process
from tune.spec.base import FrozenModel, PositiveInt
from tune.spec.cluster import Deadlines
from tune.spec.environment import Environment

MANIFEST_FILE = "processes.json"

ACCURACY_CLIENT_FILE = "client_accuracy.json"
"""Name of the plan's file with the settings of the accuracy run, absent for a trial without one."""

CALIBRATION_FILE = "calibration.json"
"""Name of the plan's file with the parameters that the forecast of a capacity search begins with."""


class ProcessManifest(FrozenModel):
    """Hold the processes of a deployment and all data to start, watch and stop them.

    `processes` are in the order in which they start, the client last; node indices are below `nodes`.
    `readiness_command` (`ready` in the file) is the command line of ready.py, which expects the prefill
    workers first, then the decode workers. `endpoint_urls` are those of the frontends, to which the client
    sends requests. `engine` is what the logs and metrics of workers and frontends mean. `argument_check`
    has the software of the nodes validate the plan before any worker starts, None where the engine has
    nothing for that. `evidence` has every node report what it and its software are. `gpu_sample` has every
    node state what its GPUs count, None where no process has a GPU. `checkpoint` is what workers load, None
    where they load nothing.

    In a Slurm job, steps run in `image`, None without one, and `container` holds their options; the client
    runs outside of it. With `keeps_containers` a process that starts anew uses the image as it was unpacked
    for the earlier process of its name, on nodes where that ran. `gpus_per_node` is what a step with GPUs
    requests on each of its nodes, None where GPUs are no generic resource. `srun_env` holds variables of srun
    itself, `srun_options` its further options, `mpi` what starts the ranks of a worker. With
    `keeps_processes` a process goes on that the next trial of the job would start with an equal command.

    Texts hold the placeholders of tune.manifest.process; `bind_text` fills them.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    nodes: PositiveInt
    processes: tuple[Process, ...]
    readiness_command: tuple[str, ...] = Field(alias="ready")
    deadlines: Deadlines
    endpoint_urls: tuple[str, ...]
    image: str | None = None
    container: tuple[str, ...]
    keeps_containers: bool
    gpus_per_node: PositiveInt | None
    keeps_processes: bool
    engine: EngineSignals
    srun_env: Environment
    srun_options: tuple[str, ...] = ()
    mpi: str = "pmix"
    argument_check: Process | None = None
    evidence: Process | None = None
    gpu_sample: Process | None = None
    checkpoint: ExpectedCheckpoint | None = None

    def text(self) -> str:
        """Return the content of `processes.json`."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"


def read_manifest(plan: Path) -> ProcessManifest:
    """Return the content of `processes.json` in `plan`. Raises ResumableError for a damaged file."""
    path = plan / MANIFEST_FILE
    try:
        return ProcessManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ResumableError(
            f"{path}: not a readable plan ({error}); expected what tune renders. Run the trial again."
        ) from error
