"""Name the plans that tests render, and read them."""

from __future__ import annotations

from typing import Any

from tune.deploy.plan import LaunchPlan
from tune.manifest.process import Process
from tune.manifest.process_manifest import MANIFEST_FILE, ProcessManifest

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "dynamo_v1": {"stack__name": "dynamo_v1", "stack__engine_yaml": "nested"},
    "tp8_decode": {
        "decode__tensor_parallel_size": 8,
        "split__prefill_workers": 14,
        "split__decode_workers": 2,
    },
    "tp2_sharing": {
        "prefill__tensor_parallel_size": 2,
        "split__prefill_workers": 5,
        "split__decode_workers": 2,
        "hardware__nodes": 5,
    },
}


def launch_of(plan: LaunchPlan) -> ProcessManifest:
    return ProcessManifest.model_validate_json(plan.files[MANIFEST_FILE])


def workers_of(plan: LaunchPlan) -> list[Process]:
    return [process for process in plan.processes if process.gpus]
