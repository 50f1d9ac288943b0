"""Make client settings, and run the client as a process: LoadGen runs once in each process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.streaming_server import MODEL
from tune.client.client_settings import ClientSettings

RIGHT: dict[str, Any] = {
    "endpoint_urls": ["http://127.0.0.1:9/v1"],
    "served_model_name": MODEL,
    "load": {
        "mode": "fixed",
        "target_qps": 200.0,
        "min_duration_s": 0.7,
        "min_queries": 100,
        "concatenate_permutation": True,
        "seed": "mlperf",
        "shuffle_seed": 3,
        "client_concurrency": 64,
        "request_timeout_s": 30.0,
        "response_timeout_s": 60.0,
        "api": "completions",
        "dataset": {
            "name": "small",
            "samples": 40,
            "longest_prompt_tokens": 400,
            "longest_answer_tokens": 30,
            "inputs": {
                "kind": "beta",
                "mean_tokens": 150.0,
                "sd_tokens": 60.0,
                "min_tokens": 10,
                "max_tokens": 400,
            },
            "outputs": {"mean_tokens": 12.0, "cap_frac": 0.0},
            "path": None,
            "sha256": None,
        },
    },
    "slo": {"ttft_p99_s": 0.4, "tpot_p99_s": 0.2},
    "max_seq_len": 430,
}


def right_with(**changes: Any) -> dict[str, Any]:
    """Return the correct settings with changes: a keyword is a dotted path, `__` for the dot."""
    tree: dict[str, Any] = json.loads(json.dumps(RIGHT))
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    return tree


def make_settings(**changes: Any) -> ClientSettings:
    return ClientSettings.model_validate_json(json.dumps(right_with(**changes)))


def client_command(folder: Path, **changes: Any) -> list[str]:
    """Write the settings, and return the command line of a run that leaves its record in `folder`/out."""
    path = folder / "client.json"
    tree = right_with(**changes)
    endpoints = [word for url in tree.pop("endpoint_urls") for word in ("--endpoint", url)]
    path.write_text(json.dumps(tree))
    command = [sys.executable, "-m", "tune.client", str(path), *endpoints]
    return [*command, "--out", str(folder / "out")]


def run_command(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
