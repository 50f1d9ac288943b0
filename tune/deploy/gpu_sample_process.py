"""Render the process in which every node states what its GPUs count."""

from __future__ import annotations

from collections.abc import Sequence

from tune.manifest.process import Process, log_path
from tune.records.gpu_samples import FIELDS

_NAME = "gpu_sample"
_SCRIPT = (
    f"nvidia-smi --query-gpu={','.join(FIELDS)} --format=csv,noheader,nounits 2>&1 "
    '| sed "/^ *$/d; s/^/gpu ${SLURMD_NODENAME:-$(uname -n)} /"'
)


def gpu_sample_process(processes: Sequence[Process], nodes: int) -> Process | None:
    """Return the process that samples the GPUs of all nodes, one task on each, outside of any image.

    None where no process of the plan has a GPU.
    """
    if not any(process.gpus for process in processes):
        return None
    gpus = tuple((node, 0) for node in range(nodes))
    return Process(_NAME, "sample", 0, gpus, {}, ("bash", "-c", _SCRIPT), log_path(_NAME))
