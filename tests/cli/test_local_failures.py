"""Test workers on real Dynamo that reject their configuration, hang, or die behind a launcher."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.local_trials import SMALL, Start, alive, printed

from tune.records.scrapes import METRICS_FILE, read_metrics, total

pytestmark = pytest.mark.slow

REFUSAL = "1 validation error for TorchLlmArgs"


def launched_by(script: str) -> str:
    """Return the override that starts every decode worker as the arguments of a shell script."""
    return f'cluster.command_prefix.decode=[bash,-c,"{script}",bash]'


def run(start: Start, folder: Path, *words: str) -> tuple[int, str, dict[str, Any]]:
    """Return exit code, output and outcome of a trial that had one attempt and left no process."""
    process = start(*SMALL, "study.retries=0", *words)
    said = printed(process)
    assert not alive(folder)
    (record,) = (folder / "runs").glob("single-local/*/outcome.json")
    assert [attempt.name for attempt in (record.parent / "raw").iterdir()] == ["1"], said
    return process.returncode, said, json.loads(record.read_text())


def test_an_engine_that_rejects_its_yaml_and_hangs_is_infeasible(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    hangs = launched_by(f"echo '{REFUSAL}'; while sleep 1; do echo waiting for rank 3; done")
    words = (*dynamo, hangs, "cluster.deadlines.quiet_s=900.0")
    code, said, outcome = run(start, tmp_path, *words)
    assert outcome["status"] == "infeasible", said
    assert "decode_w0 rejects its configuration and does not end" in outcome["reason"]
    assert REFUSAL in outcome["reason"]
    assert code == 1, said
    _, _, again = run(start, tmp_path, *words)
    assert again == outcome, "it is known, and never tried again"


def test_an_engine_that_ignores_its_settings_is_measured_and_what_it_registers_is_on_record(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    """No check compares the two: it would take the figures that older workers register for other settings."""
    ignores = launched_by(r"exec \"$@\" --max-num-seqs 7")
    code, said, outcome = run(start, tmp_path, *dynamo, ignores)
    assert (code, outcome["status"]) == (0, "measured"), said
    (metrics,) = (tmp_path / "runs").glob(f"single-local/*/raw/1/probe-1/{METRICS_FILE}")
    samples = [scrape.samples for scrape in read_metrics(metrics) if scrape.process == "frontend"]
    assert total(samples[-1], "dynamo_frontend_model_max_num_seqs") == 7


def test_an_engine_that_hangs_in_silence_fails_after_quiet_s(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    hangs = launched_by("sleep 1000")
    code, said, outcome = run(start, tmp_path, *dynamo, hangs, "cluster.deadlines.quiet_s=12.0")
    assert outcome["status"] == "failed", said
    assert "nothing moved for 12 s (cluster.deadlines.quiet_s)" in outcome["reason"]
    assert re.search(r"Missing: (.+, )?1 of decode_w0", outcome["reason"])
    assert code == 3, said


def test_a_worker_that_dies_behind_exit_code_0_fails_the_attempt(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    hides = launched_by(r"\"$@\" & sleep 3; kill -9 $!; exit 0")
    code, said, outcome = run(start, tmp_path, *dynamo, hides)
    assert outcome["status"] == "failed", said
    assert "decode_w0 ended with exit code 0 before the client did" in outcome["reason"]
    assert code == 3, said
