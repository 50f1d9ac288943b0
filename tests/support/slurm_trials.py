"""Compose trials with cluster=slurm for tests: small ones, and fakes in place of Dynamo."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.ports import port_overrides

_FAKE = Path(__file__).with_name("fake_dynamo.py")
_PROGRAMS = ("python3", "etcd", "nats-server", "trtllm-llmapi-launch")

SPLIT = "prefill_workers: {kind: int, path: split.prefill_workers, low: 1, high: 2}"


def small(
    nodes: int = 3, prefill: int = 2, decode: int = 1, *, queries: int = 40, seconds: float = 4
) -> tuple[str, ...]:
    """Return overrides of a trial of mock engines on a few nodes; a query takes a fraction of a second."""
    return (
        *("stack=dynamo_v1_mocker", f"hardware.nodes={nodes}"),
        *(f"split.prefill_workers={prefill}", f"split.decode_workers={decode}"),
        *(f"load.target_qps={queries / seconds}", f"load.min_duration_s={float(seconds)}"),
        *(f"load.min_queries={queries}", "load.concatenate_permutation=false"),
        *("load.dataset.inputs.kind=fixed", "load.dataset.inputs.mean_tokens=400.0"),
        *("load.dataset.inputs.sd_tokens=0.0", "load.dataset.outputs.mean_tokens=100.0"),
        *("load.dataset.outputs.cap_frac=0.0", "cluster.deadlines.quiet_s=30.0"),
        "cluster.deadlines.stop_s=5.0",
    )


def sweep(folder: Path, *dimensions: str, mode: str | None = "fixed") -> tuple[str, ...]:
    """Return overrides of an own sweep, study mine-slurm: two trials on a grid without baseline.

    `mode`: load.mode, left out where it is None.
    """
    own = folder / "own" / "sweep"
    own.mkdir(parents=True)
    head = ("# @package _global_", "sweep:", "  question: Which one?", "  n_trials: 2")
    text = "\n".join((*head, "  fill_decode: true", "  space:", *(f"    {line}" for line in dimensions)))
    (own / "mine.yaml").write_text(text + "\n")
    said = () if mode is None else (f"load.mode={mode}",)
    return ("--config-dir", str(own.parent), "+sweep=mine", "search=grid", "study.baseline=false", *said)


def stubbed(folder: Path, **behaviour: list[str]) -> tuple[str, ...]:
    """Return overrides under which a deployment is made of fakes with this `behaviour` (fake_dynamo.py).

    Real engines look for their services on the PATH: folder/services has them.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "services").mkdir()
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    for program in _PROGRAMS:
        path = folder / "bin" / program
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {_FAKE} {folder} program "$0" "$@"\n')
        path.chmod(0o755)
    for service in ("etcd", "nats-server"):
        (folder / "services" / service).symlink_to(folder / "bin" / service)
    return (f"cluster.dynamo_venv={folder}", *port_overrides())
