"""Make trials of the reference configuration for tests of the simulator, and read their latencies."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from support.composed import composed
from tune.core.arrays import FloatArray
from tune.records.requests import RequestLog
from tune.sim.simulator import simulate_serving
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

SHORT = ("load.concatenate_permutation=false", "load.min_queries=400", "load.min_duration_s=1.0")


STEP_ROWS = (
    "phase,batch,new_tokens,context_tokens,milliseconds",
    *("prefill,1,512,0,20", "prefill,1,4096,0,150"),
)
"""Head of a table of step times, and its prefill steps."""


def tabled(folder: Path, *decode_rows: str, drafts: int = 0) -> tuple[str, ...]:
    """Return overrides that time all steps by a table, whose decode steps have `drafts` draft tokens."""
    new = 1 + drafts
    rows = decode_rows or (
        *(f"decode,1,{new},1000,10", f"decode,1,{new},20000,12"),
        *(f"decode,64,{64 * new},64000,20", f"decode,64,{64 * new},640000,40"),
    )
    path = folder / "steps.csv"
    path.write_text("\n".join((*STEP_ROWS, *rows)) + "\n")
    steps = tuple(f"cluster.calibration.{phase}_steps={path}" for phase in ("prefill", "decode"))
    return (*steps, "cluster.calibration.prefill_scale=1.0", "cluster.calibration.decode_scale=1.0")


def make_trial(*overrides: str) -> tuple[TrialSpec, Calibration]:
    """Return the reference configuration with overrides; Hydra composes only groups, which is slow."""
    values = dict(override.split("=", 1) for override in overrides)
    composed = json.loads(_composed(tuple(f"{k}={v}" for k, v in values.items() if "." not in k)))
    for path, text in values.items():
        if "." in path:
            _set(composed, path.split("."), yaml.safe_load(text))
    settings = Settings.model_validate_json(json.dumps(composed))
    assert settings.cluster.calibration is not None
    spec = TrialSpec(**{name: getattr(settings, name) for name in TrialSpec.model_fields})
    return spec, settings.cluster.calibration


def short_trial(*overrides: str) -> tuple[TrialSpec, Calibration]:
    """Return the reference configuration with overrides and 400 queries."""
    return make_trial(*SHORT, *overrides)


def run_short(*overrides: str) -> RequestLog:
    """Simulate the reference configuration with overrides and 400 queries."""
    return simulate_serving(*short_trial(*overrides))


def ttft_s(log: RequestLog) -> FloatArray:
    """Return the TTFT of every request, seconds, shape (n,)."""
    return (log.first_token_ns - log.scheduled_ns) / 1e9


def tpot_s(log: RequestLog) -> FloatArray:
    """Return the TPOT of every answer of several tokens, seconds."""
    several = log.output_tokens > 1
    return (log.done_ns - log.first_token_ns)[several] / (log.output_tokens[several] - 1) / 1e9


def digest(log: RequestLog) -> str:
    """Return a hash of every bit of a log."""
    assert log.stages is not None
    assert log.pools is not None
    sha256 = hashlib.sha256()
    for part in (log, log.stages, log.pools):
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, np.ndarray):
                sha256.update(value.tobytes())
    return sha256.hexdigest()


@lru_cache
def _composed(groups: tuple[str, ...]) -> str:
    """Compose settings from groups, as JSON."""
    return composed(*groups).model_dump_json()


def _set(node: dict[str, Any], path: list[str], value: Any) -> None:
    """Set the value at `path`; the settings refuse a key that does not exist."""
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
