"""Ask the GPUs of all nodes, before and after a probe, for how long their clocks were held down.

Nothing that hinders a sample ends the attempt: what is not known is said to be missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tune.manifest.process import Process
from tune.orchestrator.deployment import Deployment
from tune.orchestrator.failures import AttemptFailed
from tune.orchestrator.managed_process import POLL_S, PrintLine, stop_group
from tune.records.gpu_samples import GpuSamples, NodeSamples, parse_gpu_lines, write_gpu_samples

LIMIT_S = 60.0
"""Seconds for all nodes to answer. nvidia-smi took 0.06 s on a node with two H200; a step of Slurm takes a
second to start."""


@contextmanager
def sampled_gpus(deployment: Deployment, probe: Path, print_line: PrintLine) -> Iterator[None]:
    """Sample the GPUs before and after the body, and write gpus.json in the folder `probe`.

    Nothing is written for a plan whose workers have no GPUs, and where the body raises.
    """
    process = deployment.manifest.gpu_sample
    if process is None:
        yield
        return
    before, missing = _sample(deployment, process, print_line)
    yield
    after, missing_after = _sample(deployment, process, print_line)
    write_gpu_samples(probe, GpuSamples(before=before, after=after, missing=missing | missing_after))


def _sample(
    deployment: Deployment, process: Process, print_line: PrintLine
) -> tuple[NodeSamples, dict[str, str]]:
    """Return the samples of all nodes, and by host why there is none."""
    hosts = [deployment.nodes.hosts[index] for index in process.nodes]
    try:
        running = deployment.start(process)
    except AttemptFailed as failure:
        return {}, dict.fromkeys(hosts, str(failure))
    deadline_s = time.monotonic() + LIMIT_S
    while running.handle.poll() is None and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    if running.handle.poll() is None:
        stop_group([running], deployment.manifest.deadlines.stop_s, print_line)
    deployment.release(running)
    return parse_gpu_lines(running.log.read_text(errors="replace"), hosts)
