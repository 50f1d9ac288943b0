"""Read the steps of workers from lines of the shapes that their engines print."""

from __future__ import annotations

from support.vllm_trials import SEEN

from tune.engines.base import LoggedStep
from tune.engines.registry import adapter_named


def vllm_line(context: str, generation: str, milliseconds: float) -> str:
    return (
        f"(EngineCore pid=7) INFO 11-30 06:40:00 [core.py:400] Iteration(5): {context} context tokens, "
        f"{generation} generation tokens, iteration elapsed time: {milliseconds:.2f} ms\n"
    )


def trtllm_line(number: int, scheduled: int, states: str, device: str, *, rank: int = 0) -> str:
    return (
        f"[08/19/2026-14:11:49] [TRT-LLM] [I] [_torch][RANK {rank}] iter = {number}, global_rank = {rank}, "
        f"rank = {rank}, num_scheduled_requests = {scheduled}, kv_cache_util = 0.112, "
        f"currank_total_requests = 0/1, host_step_time = 99.0ms, prev_device_step_time = {device}, "
        f"timestamp = 2026-08-19 14:11:49, states = {{{states}}}\n"
    )


def states(prompts: int, tokens: int, generated: int, cached: int) -> str:
    return (
        f"'num_ctx_requests': {prompts}, 'num_ctx_tokens': {tokens}, 'num_generation_tokens': {generated}, "
        f"'cached_kv_tokens': {cached}"
    )


def steps(engine: str, *lines: str) -> list[LoggedStep]:
    return list(adapter_named(engine).read_steps(lines))


def test_vllm_says_phase_batch_and_tokens() -> None:
    found = steps(
        "dynamo_vllm",
        vllm_line("2 context requests, 1024", "0 generation requests, 0", 50.0),
        "INFO something else\n",
        vllm_line("0 context requests, 0", "3 generation requests, 3", 8.0),
        vllm_line("1 context requests, 512", "3 generation requests, 3", 30.0),
        vllm_line("0 context requests, 0", "0 generation requests, 0", 0.01),
    )
    assert found == [
        LoggedStep("prefill", 2, 1024, None, 0.05),
        LoggedStep("decode", 3, 3, None, 0.008),
        LoggedStep(None, 4, 515, None, 0.03),
    ]


def test_a_cache_that_a_vllm_decode_worker_takes_over_is_one_more_sequence() -> None:
    """The first two lines of a real decode worker: one cache taken over, then its first further token."""
    lines = (SEEN / "decode_start.log").read_text(encoding="utf-8").splitlines(keepends=True)
    first, second, *_ = steps("dynamo_vllm", *lines)
    assert (first.phase, first.batch, first.new_tokens) == ("decode", 1, 1)
    assert (second.phase, second.batch, second.new_tokens) == ("decode", 1, 1)
    more = steps("dynamo_vllm", vllm_line("1 context requests, 1", "16 generation requests, 16", 8.0))
    assert more == [LoggedStep("decode", 17, 17, None, 0.008)]


def test_the_csv_of_a_vllm_log_has_the_same_steps() -> None:
    line = vllm_line("1 context requests, 512", "0 generation requests, 0", 24.5)
    header = "context_requests,context_tokens,generation_requests,generation_tokens,elapsed_s\n"
    assert steps("dynamo_vllm", header, "1,512,0,0,0.0245\n") == steps("dynamo_vllm", line)


def test_tensorrt_llm_prints_the_time_of_a_step_one_line_later() -> None:
    found = steps(
        "trtllm",
        trtllm_line(1, 2, states(2, 4096, 0, 0), "N/A"),
        trtllm_line(2, 1, states(1, 1000, 0, 3000), "150.5ms"),
        trtllm_line(3, 8, states(0, 0, 8, 32_000), "41.25ms"),
        trtllm_line(4, 8, states(1, 500, 7, 32_000), "6.5ms"),
        trtllm_line(5, 1, states(1, 500, 7, 32_000), "60ms"),
    )
    assert found == [
        LoggedStep("prefill", 2, 4096, 0, 0.1505),
        LoggedStep("prefill", 1, 1000, 3000, 0.04125),
        LoggedStep("decode", 8, 8, 32_000, 0.0065),
        LoggedStep(None, 8, 507, 32_000, 0.06),
    ]


def test_idle_lines_gaps_and_other_ranks_of_tensorrt_llm_have_no_step() -> None:
    """An idle line repeats the states of the last step; its own time on the GPU is none of a step."""
    decode = states(0, 0, 8, 32_000)
    found = steps(
        "trtllm",
        trtllm_line(1, 8, decode, "N/A"),
        trtllm_line(1, 8, decode, "7ms", rank=1),
        trtllm_line(2, 0, decode, "6.5ms"),
        trtllm_line(3, 8, decode, "999ms"),
        trtllm_line(5, 8, decode, "999ms"),
    )
    assert found == [LoggedStep("decode", 8, 8, 32_000, 0.0065)]


def test_older_tensorrt_llm_prints_seconds_of_the_same_step() -> None:
    line = (
        "[06/01/2025-10:00:00] [TRT-LLM] [I] iter = 7, global_rank = 0, rank = 0, "
        "currank_total_requests = 1/8, elapsed_time = 0.0125s, timestamp = 2025-06-01 10:00:00, "
        "num_scheduled_requests: 4, states = "
        "{'num_ctx_requests': 0, 'num_ctx_tokens': 0, 'num_generation_tokens': 4}\n"
    )
    assert steps("trtllm", line) == [LoggedStep("decode", 4, 4, None, 0.0125)]


def test_a_mock_engine_logs_no_steps() -> None:
    assert steps("dynamo_mocker", trtllm_line(1, 8, states(0, 0, 8, 0), "N/A")) == []
