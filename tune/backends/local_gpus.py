"""Compare the GPUs that a deployment takes with those of this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tune.spec.findings import Finding

_DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
_LIMIT_S = 30.0


def check_gpus(gpus: Iterable[tuple[int, int]]) -> tuple[Finding, ...]:
    """Return an error where this machine, which is all nodes, lacks some of `gpus`: (node index, GPU id)."""
    wanted = max((gpu + 1 for _, gpu in gpus), default=0)
    found = gpus_here() if wanted else 0
    if found >= wanted:
        return ()
    return (
        Finding(
            "error",
            "hardware.gpus_per_node",
            f"{found or 'no'} NVIDIA GPU{'s' if found != 1 else ''} on this machine",
            f"at least {wanted}, or cluster=slurm, or a stack whose engines compute nothing",
            "each worker takes the GPUs that its placement names",
            "nvidia-smi --list-gpus; /proc/driver/nvidia/gpus where there is no nvidia-smi",
        ),
    )


def gpus_here() -> int:
    """Return the number of NVIDIA GPUs that the driver of this machine shows; 0 without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return len(list(_DRIVER_FOLDER.glob("*")))
    try:
        done = subprocess.run(
            [program, "--list-gpus"], capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())
