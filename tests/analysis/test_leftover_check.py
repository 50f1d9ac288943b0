"""Test that work left before the first query is read from the last scrape before that query."""

from __future__ import annotations

from pathlib import Path

from support.run_evidence import LeftRun

NAMES = ("frontend", "prefill_w0", "prefill_w1", "decode_w0", "decode_w1")


def text(in_flight: int, running: int = 0, waiting: int = 0) -> str:
    """Return /metrics of a frontend or a worker."""
    return f"""
dynamo_frontend_inflight_requests{{model="m"}} {in_flight}
dynamo_component_inflight_requests{{dynamo_component="backend",dynamo_endpoint="generate"}} {in_flight}
dynamo_component_inflight_requests{{dynamo_component="backend",dynamo_endpoint="clear_kv_blocks"}} 5
trtllm_num_requests_running{{engine_type="trtllm",model_name="m"}} {running}
trtllm_num_requests_waiting{{engine_type="trtllm",model_name="m"}} {waiting}
"""


def scrapes(**held: str) -> list[tuple[float, str, str | None]]:
    """Return a round before the first query and one after; what a process held before is `held`."""
    before = [(-1.5, name, held.get(name, text(0))) for name in NAMES]
    return [*before, *((0.5, name, text(40)) for name in NAMES)]


def test_empty_deployment_is_as_meant(tmp_path: Path) -> None:
    check = LeftRun(tmp_path, scrapes=scrapes()).check("leftovers")
    assert check.result == "as_meant"
    assert check.found == "none at 5 of 5 frontends and workers before the first query"


def test_held_requests_are_named_with_the_line_that_shows_them(tmp_path: Path) -> None:
    left = scrapes(frontend=text(3), decode_w1=text(0, running=2, waiting=1))
    check = LeftRun(tmp_path, scrapes=left).check("leftovers")
    assert check.result == "off"
    assert check.found == (
        "3 requests at frontend on g01, 1.5 s before the first query; "
        "2 requests at decode_w1 on g04, 1.5 s before the first query"
    )
    assert check.evidence == ("raw/1/probe-1/metrics.jsonl:1", "raw/1/probe-1/metrics.jsonl:5")


def test_only_the_last_scrape_before_the_first_query_counts(tmp_path: Path) -> None:
    drained = [(-4.0, name, text(9)) for name in NAMES] + scrapes()
    assert LeftRun(tmp_path, scrapes=drained).check("leftovers").result == "as_meant"


def test_process_that_was_not_counted_is_named(tmp_path: Path) -> None:
    silent = [(after_s, name, None if name == "prefill_w1" else said) for after_s, name, said in scrapes()]
    check = LeftRun(tmp_path, scrapes=silent).check("leftovers")
    assert check.result == "not_counted"
    assert "none at 4 of 5" in check.found
    assert check.found.endswith("not counted: prefill_w1")


def test_names_of_earlier_releases_are_counted(tmp_path: Path) -> None:
    """Those of Dynamo 0.4.0."""
    earlier = """
nv_llm_http_service_inflight_requests{model="m"} 2
concurrent_requests{component="tensorrt_llm",endpoint="generate",namespace="dynamo"} 1
concurrent_requests{component="tensorrt_llm",endpoint="clear_kv_blocks",namespace="dynamo"} 5
"""
    held = [(after_s, name, earlier) for after_s, name, _ in scrapes()]
    check = LeftRun(tmp_path, scrapes=held).check("leftovers")
    assert check.result == "off"
    assert "; 1 requests at prefill_w0 on g" in check.found


def test_run_without_scrapes_is_not_counted(tmp_path: Path) -> None:
    late = [scrape for scrape in scrapes() if scrape[0] > 0]
    for name, left in (("none", []), ("late", late)):
        assert LeftRun(tmp_path / name, scrapes=left).check("leftovers").result == "not_counted"
