"""Test the checks of a run on real Dynamo in which one mock engine is slower than its peer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.local_trials import SMALL, Start, printed

pytestmark = pytest.mark.slow

FOUR_WORKERS = (
    *("hardware.nodes=4", "split.prefill_workers=2", "split.decode_workers=2"),
    *("load.min_queries=140", "load.min_duration_s=14.0"),
)
HALF_AS_FAST = """
[ "$DYN_SYSTEM_PORT" = SLOW_ONE ] && set -- "${@:1:$#-1}" 0.5
exec "$@"
"""
"""The last word of a mock engine's command is how many times faster it is than its table of step times."""


def test_slow_decode_worker_is_named_in_terminal_record_and_status(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    (first,) = (re.fullmatch(r"stack\.system_port=(\d+)", word) for word in dynamo if "system_port" in word)
    assert first is not None
    script = tmp_path / "slow.sh"
    script.write_text(HALF_AS_FAST.replace("SLOW_ONE", str(int(first[1]) + 3)))
    prefix = f"cluster.command_prefix.decode=[bash,{script}]"
    process = start(*SMALL, *FOUR_WORKERS, *dynamo, prefix)
    said = printed(process)
    assert process.returncode == 0, said
    (record,) = (tmp_path / "runs").glob("single-local/*/outcome.json")
    outcome = json.loads(record.read_text())
    checks = {check["name"]: check for check in outcome["checks"]}
    assert checks["worker_speed"]["result"] == "off", checks
    found = checks["worker_speed"]["found"]
    assert re.match(r"decode_w1 on \S+ took [\d.]+ ms a token, its peer [\d.]+ ms: [\d.]+ times", found)
    assert checks["leftovers"]["result"] == "as_meant", checks
    assert checks["client"]["result"] != "not_counted", checks
    assert checks["kv_transfers"]["found"] == "mock engines send no KV cache"
    assert checks["clocks"]["found"] == "workers have no GPUs"
    assert f"speed of workers: {found}" in said
    assert "not counted: KV transfers, clocks of GPUs" in said
    status = start("status", "study.name=single-local", f"trial={outcome['trial_id']}")
    shown = printed(status)
    assert status.returncode == 0, shown
    assert f"off         speed of workers: {found}" in shown
    assert "see raw/1/probe-1/metrics.jsonl" in shown
