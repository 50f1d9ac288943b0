"""Test that a worker slower than its peers by more than threshold and noise is named with its node."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.run_evidence import LeftRun

ROUNDS = 60
FORMS = {
    "TensorRT-LLM": 'trtllm_time_per_output_token_seconds_{part}{{model_name="m"}} {value}',
    "mock engine": 'trtllm:inter_token_latency_seconds_{part}{{engine="0"}} {value}',
    "vLLM": 'vllm:inter_token_latency_seconds_{part}{{engine="0"}} {value}',
}
STACKS = {
    "TensorRT-LLM": ("stack=dynamo_v1",),
    "mock engine": ("stack=dynamo_v1_mocker",),
    "vLLM": ("stack=dynamo_vllm", "prefill=vllm", "decode=vllm"),
}
Scrapes = list[tuple[float, str, str | None]]


def worker(name: str, request_s: tuple[float, ...], token_s: float | None, form: str, each: int) -> Scrapes:
    """Return scrapes of a Dynamo worker that answers `each` requests between two of them.

    They take `request_s` in turn; the engine shows the time per token, unless that is None.
    """
    labels = 'dynamo_component="backend",dynamo_endpoint="generate",model="m"'
    scrapes, total_s = Scrapes(), 0.0
    for number in range(ROUNDS):
        total_s += each * request_s[number % len(request_s)] * (number > 0)
        lines = [
            f"dynamo_component_requests_total{{{labels}}} {each * number}",
            f"dynamo_component_request_duration_seconds_sum{{{labels}}} {total_s}",
            f"dynamo_component_request_duration_seconds_count{{{labels}}} {each * number}",
        ]
        if token_s is not None:
            lines.append(form.format(part="sum", value=each * number * token_s))
            lines.append(form.format(part="count", value=each * number))
        scrapes.append((2.0 * number, name, "\n".join(lines)))
    return scrapes


def pools(
    prefill_s: tuple[tuple[float, ...], tuple[float, ...]] = ((1.5,), (1.5,)),
    decode_s: tuple[float, float] = (30.0, 30.0),
    token_s: tuple[float, float] | None = (0.045, 0.045),
    engine: str = "TensorRT-LLM",
    each: int = 20,
) -> Scrapes:
    """Return the scrapes of two workers in each pool."""
    scrapes = Scrapes()
    for index in range(2):
        tokens = None if token_s is None else token_s[index]
        scrapes += worker(f"prefill_w{index}", prefill_s[index], None, "", each)
        scrapes += worker(f"decode_w{index}", (decode_s[index],), tokens, FORMS[engine], each)
    return scrapes


@pytest.mark.parametrize("engine", FORMS)
def test_slow_decode_worker_is_named_with_its_node(engine: str, tmp_path: Path) -> None:
    left = pools(token_s=(0.045, 0.058), engine=engine)
    check = LeftRun(tmp_path, overrides=STACKS[engine], scrapes=left).check("worker_speed")
    assert check.result == "off"
    assert check.found == (
        "decode_w1 on g04 took 58 ms a token, its peer 45 ms: 1.29 times, up to 1.15 may be; "
        "it had 1,180 of 2,360 requests"
    )


def test_slow_prefill_worker_holds_its_requests_longer(tmp_path: Path) -> None:
    check = LeftRun(tmp_path, scrapes=pools(prefill_s=((1.9,), (1.5,)))).check("worker_speed")
    assert check.result == "off"
    assert check.found.startswith("prefill_w0 on g01 took 1.9 s a request, its peer 1.5 s: 1.27 times")


def test_equal_workers_are_as_meant(tmp_path: Path) -> None:
    check = LeftRun(tmp_path, scrapes=pools(token_s=(0.045, 0.047))).check("worker_speed")
    assert check.result == "as_meant"
    assert "decode_w1 on g04 took 47 ms a token, its peer 45 ms: 1.04 times, up to 1.15" in check.found


def test_difference_within_the_noise_of_the_run_is_no_finding(tmp_path: Path) -> None:
    """Requests of one part of the run wait together, so the parts of it tell how sure the mean is."""
    busy_now_and_then = tuple([0.2] * 5 + [5.0] * 5)
    check = LeftRun(tmp_path, scrapes=pools(prefill_s=(busy_now_and_then, (2.0,)))).check("worker_speed")
    assert check.result == "as_meant"
    assert "prefill_w0 on g01 took 2.6" in check.found
    steady = LeftRun(tmp_path / "steady", scrapes=pools(prefill_s=((2.6,), (2.0,)))).check("worker_speed")
    assert steady.result == "off"


def test_engine_without_times_of_tokens_is_compared_by_its_requests(tmp_path: Path) -> None:
    check = LeftRun(tmp_path, scrapes=pools(token_s=None, decode_s=(30.0, 45.0))).check("worker_speed")
    assert check.result == "off"
    assert check.found.startswith("decode_w1 on g04 took 45 s a request, its peer 30 s")


def test_missing_counters_few_requests_and_few_scrapes_are_not_counted(tmp_path: Path) -> None:
    assert LeftRun(tmp_path / "none").check("worker_speed").result == "not_counted"
    few = [scrape for scrape in pools(token_s=(0.045, 0.09), each=2) if scrape[0] < 12]
    check = LeftRun(tmp_path / "few", scrapes=few).check("worker_speed")
    assert check.result == "not_counted"
    assert "one had 10 requests, at least 20 are needed" in check.found
    short = [scrape for scrape in pools(token_s=(0.045, 0.09)) if scrape[0] < 10]
    check = LeftRun(tmp_path / "short", scrapes=short).check("worker_speed")
    assert check.result == "not_counted"
    assert "no metric of theirs says often enough how long they took" in check.found
    one = [scrape for scrape in pools() if scrape[1] != "decode_w1"]
    check = LeftRun(tmp_path / "one", scrapes=one).check("worker_speed")
    assert check.result == "not_counted"
    assert "decode workers are not compared: they do not count their requests" in check.found
