"""Write the results of a trial as a Benchmark Report of llm-d, version 0.2.

Source: llmd-benchmark-report 0.2.1 (schema_v0_2.py), which reads every report of version 0.2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tune.core.arrays import IntArray
from tune.engines.registry import engine_of
from tune.records.folders import TrialFolder
from tune.records.outcome import Outcome, Percentiles, Probe
from tune.records.requests import RequestLog, read_requests
from tune.records.study_record import StudyRecord
from tune.report.backend_label import backend_label
from tune.spec.engine import Engine
from tune.spec.engine_table import ENGINES
from tune.spec.environment import given_values
from tune.spec.trial import TrialSpec, WorkerPool
from tune.workload.lengths import draw_lengths

VERSION = "0.2"

NOT_REPORTED = (
    "the verdict, its limits and LoadGen's own result",
    "capacity, bottleneck, stages of a request, load of the pools",
    "the 97th percentile of every latency",
    "further probes of a capacity search",
)
"""What a report has no place for."""

_DYNAMO = "ai-dynamo"
"""Distribution of the frontend, as nodes name its version."""

_PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99p9": "p99_9", "max": "max"}
"""Statistics of a report, and of a record."""

_DRAWN = {"p1": 1, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p99": 99}


def benchmark_report(study: StudyRecord, spec: TrialSpec, outcome: Outcome, folder: TrialFolder) -> str:
    """Return the report of a measured trial: of its best feasible probe, else of that at the lowest rate.

    Parameters
    ----------
    study
        The study.
    spec, outcome
        The trial and its outcome.
    folder
        Holds the raw records of its probes.

    Returns
    -------
    str
        YAML.
    """
    probe = _shown_probe(outcome)
    log = _requests(folder, probe)
    found: Mapping[str, str] = outcome.provenance.get("evidence", {}).get("versions", {})
    content = {
        "version": VERSION,
        "run": _run(study, spec, outcome),
        "scenario": {
            "stack": [*(_engine(spec, pool, found) for pool in spec.pools), _frontend(spec, found)],
            "load": _load(spec, probe, outcome),
        },
        "results": {"request_performance": {"aggregate": _aggregate(outcome, probe, log)}},
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def _shown_probe(outcome: Outcome) -> Probe:
    """Return the probe whose figures are those of the outcome."""
    same = (probe for probe in outcome.probes if probe.output_tps == outcome.output_tps)
    return next(same, outcome.probes[0])


def _requests(folder: TrialFolder, probe: Probe) -> RequestLog | None:
    file = folder.root / Path(probe.raw) / "requests.npz"
    return read_requests(file) if file.is_file() else None


def _run(study: StudyRecord, spec: TrialSpec, outcome: Outcome) -> dict[str, Any]:
    attempt = outcome.attempts[-1]
    took = datetime.fromisoformat(attempt.ended_at) - datetime.fromisoformat(attempt.started_at)
    return {
        "uid": f"{study.name}-{outcome.trial_id}",
        "eid": study.name,
        "time": {
            "start": attempt.started_at,
            "end": attempt.ended_at,
            "duration": f"PT{took.total_seconds():g}S",
        },
        "description": f"{spec.model.name} {spec.split.label} on {study.gpus} x {spec.hardware.name} "
        f"({backend_label(study.backend, study.engine).name}): trial {outcome.trial_id} of {study.name}",
    }


def _engine(spec: TrialSpec, pool: WorkerPool, found: Mapping[str, str]) -> dict[str, Any]:
    """Return a pool of workers, with the version that the nodes found, else those that the stack is for."""
    adapter = engine_of(spec)
    role, engine, replicas = pool
    settings = engine.model_dump(mode="json")
    name = ENGINES[spec.stack.engine].recipe_name or spec.stack.engine
    return {
        "metadata": {"label": role, "cfg_id": _hash(settings)},
        "standardized": {
            "kind": "inference_engine",
            "tool": name,
            "tool_version": found.get(adapter.package)
            or adapter.versions.get(spec.stack.generation, "unknown"),
            "role": "replica" if role == "aggregated" else role,
            "replicas": replicas,
            "model": {"name": spec.model.served_name},
            "accelerator": {
                "model": spec.hardware.name,
                "count": engine.gpus,
                "parallelism": _parallelism(engine),
            },
        },
        "native": {
            "envars": given_values(spec.environments[f"{role}.env"]),
            "config": {name: value for name, value in settings.items() if name != "env"},
        },
    }


def _parallelism(engine: Engine) -> dict[str, int]:
    return {"tp": engine.tensor_parallel, "pp": engine.pipeline_stages}


def _frontend(spec: TrialSpec, found: Mapping[str, str]) -> dict[str, Any]:
    settings = spec.stack.model_dump(mode="json") | {"frontends": spec.split.frontends}
    return {
        "metadata": {"label": "frontend", "cfg_id": _hash(settings)},
        "standardized": {
            "kind": "generic",
            "tool": "dynamo.frontend",
            "tool_version": found.get(_DYNAMO, spec.stack.name),
            "replicas": spec.split.frontends,
        },
        "native": {"config": settings},
    }


def _load(spec: TrialSpec, probe: Probe, outcome: Outcome) -> dict[str, Any]:
    load = spec.load
    prompts, answers = draw_lengths(load.dataset, load.dataset.samples, True, load.shuffle_seed)
    settings = {"load": load.model_dump(mode="json"), "slo": spec.slo.as_settings()}
    versions: Mapping[str, str] = outcome.provenance.get("versions", {})
    return {
        "metadata": {"cfg_id": _hash(settings)},
        "standardized": {
            "tool": "tune",
            "tool_version": versions.get("tune", "unknown"),
            "source": "sampled" if load.dataset.path else "random",
            "input_seq_len": _sent(prompts),
            "output_seq_len": _sent(answers),
            **({} if probe.target_qps is None else {"rate_qps": probe.target_qps}),
            "concurrency": load.concurrency or load.client_concurrency,
        },
        "native": {"config": settings},
    }


def _sent(tokens: IntArray) -> dict[str, Any]:
    """Return the lengths that a load sends; those of a report are fixed, normal, uniform or other."""
    low, high = int(tokens.min()), int(tokens.max())
    if low == high:
        return {"distribution": "fixed", "value": low}
    return {
        "distribution": "other",
        "value": float(tokens.mean()),
        "std_dev": float(tokens.std()),
        "min": low,
        "max": high,
    }


def _aggregate(outcome: Outcome, probe: Probe, log: RequestLog | None) -> dict[str, Any]:
    requests: dict[str, Any] = {"total": probe.queries}
    throughput: dict[str, Any] = {}
    if log is not None:
        answered = log.error == ""
        requests = {
            "total": len(log),
            "failures": int((~answered).sum()),
            "input_length": _drawn(log.input_tokens),
            "output_length": _drawn(log.output_tokens[answered]),
        }
    if probe.output_tps is not None:
        throughput["output_token_rate"] = {"units": "tokens/s", "mean": probe.output_tps}
    if probe.completed_qps is not None:
        throughput["request_rate"] = {"units": "queries/s", "mean": probe.completed_qps}
    latencies = {
        "time_to_first_token": _percentiles(probe.ttft_s, "s"),
        "time_per_output_token": _percentiles(probe.tpot_s, "s/token"),
        "request_latency": _percentiles(probe.latency_s, "s"),
    }
    return {
        "requests": requests,
        "latency": {name: figures for name, figures in latencies.items() if figures},
        "throughput": throughput,
    }


def _percentiles(figures: Percentiles | None, units: str) -> dict[str, Any] | None:
    if figures is None:
        return None
    named = {name: getattr(figures, of_record) for name, of_record in _PERCENTILES.items()}
    return {"units": units, "mean": figures.mean, **named}


def _drawn(tokens: IntArray) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415  (only a report of requests needs it)

    found = np.percentile(tokens, list(_DRAWN.values()))
    return {
        "units": "count",
        "mean": float(tokens.mean()),
        "stddev": float(tokens.std()),
        "min": int(tokens.min()),
        **{name: float(value) for name, value in zip(_DRAWN, found, strict=True)},
        "max": int(tokens.max()),
    }


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
