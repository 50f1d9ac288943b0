"""Settings that are right, to be made wrong, and the client as a process: LoadGen runs once in each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from streaming_server import MODEL

from tune.client.settings import ClientSettings

DATASET: dict[str, Any] = {
    "name": "small",
    "samples": 40,
    "longest_prompt_tokens": 400,
    "longest_answer_tokens": 40,
    "inputs": {"kind": "beta", "mean_tokens": 150.0, "sd_tokens": 60.0, "min_tokens": 10, "max_tokens": 400},
    "outputs": {"mean_tokens": 12.0, "cap_frac": 0.0},
    "path": None,
}
RIGHT: dict[str, Any] = {
    "endpoint_url": "http://127.0.0.1:9/v1",
    "served_model_name": MODEL,
    "target_qps": 200.0,
    "min_duration_s": 0.7,
    "min_queries": 100,
    "concatenate_permutation": True,
    "schedule_seed": "mlperf",
    "length_seed": 3,
    "ttft_limit_s": 0.4,
    "tpot_limit_s": 0.2,
    "max_output_tokens": 30,
    "samples": 40,
    "client_concurrency": 64,
    "request_timeout_s": 30.0,
    "response_timeout_s": 60.0,
    "dataset_path": None,
    "dataset": DATASET,
}


def make_settings(**changes: Any) -> ClientSettings:
    return ClientSettings.model_validate_json(json.dumps({**RIGHT, **changes}))


def client_command(folder: Path, **changes: Any) -> list[str]:
    """The command line of a run that leaves its record in `folder`/out; writes its settings."""
    path = folder / "client.json"
    path.write_text(json.dumps({**RIGHT, **changes}))
    return [sys.executable, "-m", "tune.client", str(path), "--out", str(folder / "out")]


def run_command(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
