"""Test real Dynamo with several frontends, a kv router, and both request planes and discoveries."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.local_trials import SMALL, Start, printed

from tune.manifest.process_manifest import read_manifest
from tune.records.evidence import read_evidence
from tune.records.scrapes import METRICS_FILE, read_metrics, total

pytestmark = pytest.mark.slow

REUSE = tuple(f"{role}.kv_cache_config.enable_block_reuse=true" for role in ("prefill", "decode"))
KV = ("split.frontends=2", "stack.router_mode=kv")
QUERIES = 60


def measured(process_said: str, folder: Path) -> tuple[Path, dict[str, dict[str, float]]]:
    """Return the attempt of the one trial in `folder`, and the last samples of each of its processes."""
    (attempt,) = (folder / "runs").glob("single-local/*/raw/1")
    logs = [log.read_text() for log in attempt.glob("logs/localhost_frontend*.out")]
    assert len(logs) == 2
    assert not [log for log in logs if "scheduling::selector" in log], "a line for every choice"
    metrics = attempt / "probe-1" / METRICS_FILE
    assert metrics.exists(), process_said
    return attempt, {scrape.process: dict(scrape.samples) for scrape in read_metrics(metrics)}


def served(samples: dict[str, float], metric: str) -> float:
    return total(samples, metric) or 0.0


def test_kv_routers_learn_blocks_over_nats_and_find_workers_by_files(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    process = start(*SMALL, *KV, *REUSE, "stack.request_plane=nats", "stack.discovery=file", *dynamo)
    said = printed(process)
    assert process.returncode == 0, said
    assert "all 2 frontends have answered" in said
    attempt, last = measured(said, tmp_path)
    for name in ("frontend", "frontend_1"):
        assert served(last[name], "dynamo_frontend_requests_total") >= QUERIES / 2, "they take turns"
    assert served(last["decode_w0"], "dynamo_component_requests_total") >= QUERIES
    asked = [key for key, count in last["prefill_w0"].items() if "kv_query_source" in key and count >= 2]
    assert asked, "both routers asked a worker for the blocks that it holds"
    plan = read_manifest(attempt.parents[1] / "plan")
    assert [p.name for p in plan.processes if p.role in ("etcd", "nats")] == ["nats"]
    evidence = read_evidence(attempt)
    assert evidence is not None
    assert evidence.versions["ai-dynamo"] == "1.6.1"
    assert "GPUs" in evidence.missing or "GPU driver" in evidence.versions


def test_kv_routers_tell_each_other_over_tcp_and_etcd(
    start: Start, dynamo: tuple[str, ...], tmp_path: Path
) -> None:
    choice = "split.frontend_choice=fewest_input_tokens"
    process = start(*SMALL, *KV, choice, "stack.request_plane=tcp", "stack.discovery=etcd", *dynamo)
    said = printed(process)
    assert process.returncode == 0, said
    attempt, last = measured(said, tmp_path)
    frontends = [served(last[name], "dynamo_frontend_requests_total") for name in ("frontend", "frontend_1")]
    assert min(frontends) > QUERIES / 4
    assert sum(frontends) >= QUERIES
    plan = read_manifest(attempt.parents[1] / "plan")
    for frontend in (process for process in plan.processes if process.role == "frontend"):
        assert "--router-replica-sync" in frontend.argv
        assert frontend.env["DYN_REQUEST_PLANE"] == "tcp"
    prefill = [served(last[f"prefill_w{i}"], "dynamo_component_requests_total") for i in (0, 1)]
    assert min(prefill) > QUERIES / 4, "routers that know each other's requests share the pool"
