"""Test closed loops: users who wait, the pools of an open loop under them, and limits known by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sim_trials import digest, make_trial, tabled, tpot_s, ttft_s

from tune.analysis.measure import completion_qps
from tune.core.arrays import FloatArray
from tune.loadgen.latencies import answered, latencies
from tune.records.requests import RequestLog
from tune.sim.admission import answered_tokens, reserved_kv_tokens
from tune.sim.closed_serving import serve_users
from tune.sim.disaggregated import serve_by_two_pools
from tune.sim.served import Accepted
from tune.sim.simulator import simulate_requests, simulate_serving
from tune.sim.worker_models import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec
from tune.workload.lengths import request_lengths

POLICY = "decode.scheduler_config={{capacity_scheduler_policy: {}}}"
VARIANTS = [
    (),
    ("split.decode_workers=1", POLICY.format("MAX_UTILIZATION")),
    ("split.decode_workers=1", POLICY.format("STATIC_BATCH")),
    ("prefill.scheduler_config.context_chunking_policy=EQUAL_PROGRESS", "split.prefill_workers=4"),
    ("stack.router_mode=random", "split.disaggregation_strategy=decode_first"),
    ("stack=dynamo_v1", "stack.router_mode=least-loaded", "split.prefill_workers=3"),
    ("stack=dynamo_v1", "stack.router_mode=random", "split.frontends=2"),
    ("stack=dynamo_v1", "stack.router_mode=round-robin", "split.frontends=3"),
    ("stack.router_mode=least-loaded", "cluster.calibration.head_node_scale=1.3", "split.decode_workers=2"),
    ("cluster.calibration.kv_transfer_bytes_per_s=1.0e+9",),
]
RANKED = "{}.extra={{enable_attention_dp: true}}"
DRAFTS = "speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 3}"
TABLED_VARIANTS = [
    (RANKED.format("decode"), "split.decode_workers=2"),
    (RANKED.format("prefill"), "split.prefill_workers=3"),
    (RANKED.format("prefill"), RANKED.format("decode"), "stack=dynamo_v1", "stack.router_mode=least-loaded"),
    (RANKED.format("decode"), "split.decode_workers=1", POLICY.format("MAX_UTILIZATION")),
    (RANKED.format("decode"), "cluster.calibration.rank_router=round_robin"),
    (f"decode.extra={{{DRAFTS}}}", "split.decode_workers=2"),
    (f"decode.extra={{enable_attention_dp: true, {DRAFTS}}}", RANKED.format("prefill")),
]
"""Ranks and drafts, which no roofline times."""

INSTANT_FRONTENDS = "cluster.calibration.frontend_message_s=0"


def users_trial(users: int, *overrides: str) -> tuple[TrialSpec, Calibration]:
    """Return the reference configuration under a closed loop."""
    closed = ("load.mode=concurrency", "load.target_qps=null", f"load.concurrency={users}")
    return make_trial(*closed, *overrides)


def run_users(users: int, *overrides: str) -> RequestLog:
    """Simulate the reference configuration under a closed loop."""
    return simulate_serving(*users_trial(users, *overrides))


def latency_s(log: RequestLog) -> FloatArray:
    """Return the latency of every request, seconds."""
    return (log.done_ns - log.scheduled_ns) / 1e9


def measured_qps(log: RequestLog) -> float:
    """Return the rate of completions as a trial measures it."""
    good = answered(log)
    return completion_qps(log, latencies(log, good), good) or 0.0


def demand(spec: TrialSpec) -> Accepted:
    """Return the requests of a closed loop, which are all accepted."""
    prompt, answer = request_lengths(spec.load, spec.load.expected_queries)
    answer = answered_tokens(spec, prompt, answer)
    longest = np.full_like(prompt, spec.load.dataset.longest_answer_tokens)
    return Accepted(np.zeros(0), prompt, answer, reserved_kv_tokens(spec, prompt, longest), np.inf)


@pytest.mark.parametrize("overrides", [*VARIANTS, *TABLED_VARIANTS])
def test_pools_serve_the_arrivals_of_a_closed_loop_as_those_of_an_open_one(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """The two are other programs: one for both pools by time, one for each pool after the other."""
    drafts = 3 if any(DRAFTS in override for override in overrides) else 0
    tables = tabled(tmp_path, drafts=drafts) if overrides in TABLED_VARIANTS else ()
    spec, calibration = users_trial(60, "load.min_queries=500", INSTANT_FRONTENDS, *tables, *overrides)
    sent, closed, _ = serve_users(spec, calibration, demand(spec))
    opened = serve_by_two_pools(spec, calibration, sent)
    for name in ("prefill_worker", "decode_worker"):
        np.testing.assert_array_equal(getattr(closed, name), getattr(opened, name))
    for name in ("prefill_start_s", "prefill_done_s", "kv_arrived_s", "decode_start_s", "first_s", "done_s"):
        np.testing.assert_allclose(getattr(closed, name), getattr(opened, name), rtol=1e-9)
    for name in ("prefill_busy_frac", "decode_batch_mean", "decode_kv_used_frac"):
        # the last steps are cut at the end of the window, and there are more, shorter runs of steps
        np.testing.assert_allclose(getattr(closed.pools, name), getattr(opened.pools, name), rtol=1e-4)


@pytest.mark.parametrize("overrides", [(), ("split.decode_workers=1",), ("split.frontends=1",)])
def test_a_query_is_sent_when_an_answer_has_ended(overrides: tuple[str, ...]) -> None:
    log = run_users(40, "load.min_queries=500", *overrides)
    assert len(log) == 500
    assert (log.scheduled_ns[:40] == 0).all()
    ended_ns = np.sort(log.done_ns)[:460]
    assert np.abs(log.scheduled_ns[40:] - ended_ns).max() <= 1  # both are rounded to whole nanoseconds
    assert (np.diff(log.scheduled_ns) >= 0).all()
    assert (log.first_token_ns <= log.done_ns).all()


def test_one_user_sees_the_latency_of_an_idle_rack() -> None:
    spec, calibration = users_trial(1, INSTANT_FRONTENDS)
    log = simulate_serving(spec, calibration)
    alone_ns = np.arange(len(log)) * 1_000_000_000_000
    unloaded = simulate_requests(spec, calibration, alone_ns, (log.input_tokens, log.output_tokens))
    np.testing.assert_allclose(ttft_s(log), ttft_s(unloaded), atol=5e-9)
    np.testing.assert_allclose(latency_s(log), latency_s(unloaded), atol=5e-9)


@pytest.mark.parametrize("users", [8, 64, 256])
def test_users_are_throughput_times_latency(users: int) -> None:
    """Little's law, between the start and the end of the run, where all users are busy."""
    log = run_users(users, f"load.min_queries={40 * users}")
    window = (log.scheduled_ns > log.scheduled_ns[-1] // 4) & (
        log.scheduled_ns < log.scheduled_ns[-1] // 4 * 3
    )
    rate_qps = window.sum() / (log.scheduled_ns[window][-1] - log.scheduled_ns[window][0]) * 1e9
    assert rate_qps * latency_s(log)[window].mean() == pytest.approx(users, rel=0.04)


def test_more_users_complete_more_until_the_rack_is_full() -> None:
    rates = [measured_qps(run_users(users, "load.min_queries=4000")) for users in (1, 4, 16, 64, 256)]
    full = [measured_qps(run_users(users)) for users in (1000, 2000)]
    assert all(later > 1.5 * earlier for earlier, later in pairwise(rates))
    assert full[0] > rates[-1]
    assert full[1] == pytest.approx(full[0], rel=0.03)


def test_an_open_loop_at_the_rate_of_a_closed_one_completes_as_much() -> None:
    closed = run_users(200, "load.min_queries=4000")
    rate_qps = measured_qps(closed)
    opened = simulate_serving(
        *make_trial(
            f"load.target_qps={rate_qps}",
            "load.concatenate_permutation=false",
            "load.min_queries=4000",
            "load.min_duration_s=1.0",
        )
    )
    assert measured_qps(opened) == pytest.approx(rate_qps, rel=0.03)
    assert np.median(tpot_s(opened)) == pytest.approx(np.median(tpot_s(closed)), rel=0.05)


def fixed_lengths(prompt: int, answer: int) -> tuple[str, ...]:
    """Return overrides of requests of one length on one worker of each pool, with a chunk a prompt."""
    return (
        "load=fixed",
        f"load.dataset.inputs={{kind: range, tokens: {prompt}, range_ratio: 0.0, range_rule: vllm}}",
        f"load.dataset.outputs={{kind: range, tokens: {answer}, range_ratio: 0.0, range_rule: vllm}}",
        f"load.dataset.longest_prompt_tokens={prompt}",
        f"load.dataset.longest_answer_tokens={answer}",
        f"prefill.max_num_tokens={prompt}",
        "split.prefill_workers=1",
        "split.decode_workers=1",
        INSTANT_FRONTENDS,
    )


def prompt_step_s(spec: TrialSpec, calibration: Calibration, prompt: int) -> float:
    """Return the seconds of a step that reads one whole prompt."""
    worker = prefill_worker(spec, calibration, np.inf)
    return worker.step_s + worker.token_s * prompt + worker.pair_s * prompt * prompt / 2


@pytest.mark.parametrize("users", [1, 2, 8])
def test_prompts_alone_keep_a_prefill_worker_as_busy_as_by_hand(users: int) -> None:
    """One user waits for every stage; from the second on, the worker that reads prompts is never idle."""
    prompt = 8192
    spec, calibration = users_trial(users, *fixed_lengths(prompt, 1))
    log = simulate_serving(spec, calibration)
    step_s = prompt_step_s(spec, calibration, prompt)
    _, steps = decode_worker(spec, calibration, np.inf)
    assert log.stages is not None
    on_way_s = (log.stages.kv_arrived_ns - log.stages.prefill_done_ns)[-1] / 1e9
    alone_s = (
        calibration.ttft_overhead_s + step_s + on_way_s + steps.batch_s[1, 0] + steps.token_s[1, 0] * prompt
    )
    assert alone_s < 2 * step_s
    period_s = alone_s if users == 1 else step_s
    gaps_s = np.diff(log.scheduled_ns[2 * users :]) / 1e9
    assert gaps_s.mean() == pytest.approx(period_s, rel=1e-3)


def test_decoders_alone_share_every_step() -> None:
    """Long answers of short prompts: each user gets a token a step, of a batch of all users."""
    users, prompt, answer = 16, 64, 1500
    spec, calibration = users_trial(users, *fixed_lengths(prompt, answer))
    log = simulate_serving(spec, calibration)
    _, steps = decode_worker(spec, calibration, np.inf)
    step_s = steps.batch_s[users, 0] + steps.token_s[users, 0] * users * (prompt + answer / 2)
    assert np.median(tpot_s(log)) == pytest.approx(step_s, rel=0.01)


def test_a_rejected_request_takes_its_user_no_time() -> None:
    reject: dict[str, Any] = {"load.min_queries": 300, "prefill.max_seq_len": 12000}
    log = run_users(20, *(f"{path}={value}" for path, value in reject.items()))
    rejected = log.error != ""
    assert 0 < rejected.sum() < 200
    assert (log.done_ns[rejected] == -1).all()
    assert (np.diff(log.scheduled_ns) >= 0).all()
    assert (log.scheduled_ns[~rejected][:20] == 0).all()
    ended_ns = np.sort(log.done_ns[~rejected])[: (~rejected).sum() - 20]
    assert np.abs(log.scheduled_ns[~rejected][20:] - ended_ns).max() <= 1


def test_equal_closed_loops_give_equal_bits_and_seeds_matter() -> None:
    assert digest(run_users(10)) == digest(run_users(10))
    assert digest(run_users(10)) != digest(run_users(10, "load.shuffle_seed=1"))
