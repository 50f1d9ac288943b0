"""`processes.json`: what an orchestrator needs of a plan, as data."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tune.deploy.process import Process
from tune.errors import ResumableError
from tune.spec.base import FrozenModel, PositiveInt
from tune.spec.cluster import Deadlines

MANIFEST_FILE = "processes.json"


class ProcessManifest(FrozenModel):
    """`processes`: in the order in which they start, the client last. `ready`: the command line of ready.py,
    which expects the prefill workers first, then the decode workers. Node indices are below `nodes`.
    `endpoint_url`: what the client asks.

    Of a Slurm job: `container`, the options of a step that runs in the image, empty without one; the client
    runs outside it. `keeps_containers`: a process that starts anew takes the image as it was unpacked for the
    one of its name before, on nodes where that ran. `gpus_per_node`: what a step with GPUs asks of each of
    its nodes, None where GPUs are no generic resource. `keeps_processes`: those that the next trial of the
    same job would start anew, as they are, may go on.

    Texts hold the placeholders of tune.deploy.process; `bind_text` fills them.
    """

    nodes: PositiveInt
    processes: tuple[Process, ...]
    ready: tuple[str, ...]
    deadlines: Deadlines
    endpoint_url: str
    container: tuple[str, ...]
    keeps_containers: bool
    gpus_per_node: PositiveInt | None
    keeps_processes: bool

    def text(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def read_manifest(plan: Path) -> ProcessManifest:
    """What `processes.json` in the folder `plan` says. Raises ResumableError where it is not what a plan holds."""
    path = plan / MANIFEST_FILE
    try:
        return ProcessManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ResumableError(
            f"{path}: not a readable plan ({error}); expected what tune renders. Run the trial again."
        ) from error
