"""Measure performance and accuracy of a trial with the real LoadGen; the server knows the answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.accuracy_dataset import AccuracyFiles
from support.right_client import run_command
from support.streaming_server import MODEL, StreamingServer
from tune.deploy.plan import client_json
from tune.records.accuracy import ACCURACY_FOLDER
from tune.records.folders import PROBE_FOLDER
from tune.spec.trial import TrialSpec


def accuracy_words(files: AccuracyFiles) -> tuple[str, ...]:
    """Return overrides of a short trial over the dataset of `files`, with an accuracy run."""
    return (
        *(f"load.dataset.path={files.dataset}", f"load.dataset.samples={len(files.references)}"),
        *("load.accuracy=true", "load.target_qps=300.0", "load.min_duration_s=0.1", "load.min_queries=24"),
    )


def measure_accuracy(attempt: Path, spec: TrialSpec, files: AccuracyFiles) -> None:
    """Leave a probe and an accuracy run in `attempt`, a new folder; the settings of both lie beside it."""
    attempt.mkdir(parents=True)
    with StreamingServer(
        answer_of=lambda seen: files.references[seen.body["prompt"][0]], tokens_per_event=130
    ) as server:
        for tokenizer, name in ((None, PROBE_FOLDER), (str(files.tokenizer), ACCURACY_FOLDER)):
            settings = json.loads(client_json(spec, tokenizer)) | {"served_model_name": MODEL}
            path = files.dataset.with_name(f"{name}.json")
            path.write_text(json.dumps(settings))
            command = [sys.executable, "-m", "tune.client", str(path), "--endpoint", server.url]
            done = run_command([*command, "--out", str(attempt / name)])
            assert done.returncode == 0, done.stderr
