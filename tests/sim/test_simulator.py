"""Test the whole simulator: conservation, the parts of TTFT, determinism, and the published run."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.sim_trials import digest, make_trial, run_short, short_trial, tpot_s, ttft_s

from tune.analysis.breakdown import decode_slots
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.errors import ConfigurationError
from tune.records.requests import Stages
from tune.sim.simulator import simulate_requests, simulate_serving

POLICY = "decode.scheduler_config={{capacity_scheduler_policy: {}}}"
VARIANTS = [
    (),
    ("split.decode_workers=1", POLICY.format("MAX_UTILIZATION"), "load.target_qps=40"),
    ("split.decode_workers=1", POLICY.format("STATIC_BATCH")),
    ("prefill.scheduler_config.context_chunking_policy=EQUAL_PROGRESS", "load.target_qps=60"),
    ("prefill.enable_chunked_prefill=false", "prefill.max_num_tokens=20192"),
    ("stack.router_mode=random", "split.disaggregation_strategy=decode_first"),
    ("stack=dynamo_v1", "stack.router_mode=least-loaded", "load.target_qps=40"),
    ("stack.router_mode=least-loaded", "cluster.calibration.head_node_scale=1.3", "split.decode_workers=2"),
    ("cluster.calibration.kv_transfer_bytes_per_s=1.0e+9", "cluster.calibration.frontend_message_s=2.0e-4"),
    ("prefill.tensor_parallel_size=2", "prefill.pipeline_parallel_size=2", "decode.cuda_graph_config=null"),
    ("decode.extra={enable_attention_dp: true}", "load.target_qps=30", "split.decode_workers=2"),
    (
        "decode.extra={enable_attention_dp: true}",
        POLICY.format("MAX_UTILIZATION"),
        "split.decode_workers=2",
        "stack=dynamo_v1",
        "stack.router_mode=least-loaded",
    ),
    ("prefill.extra={enable_attention_dp: true}", "split.prefill_workers=3"),
    (
        "decode.extra={speculative_config: {decoding_type: MTP, max_draft_len: 3}}",
        POLICY.format("MAX_UTILIZATION"),
        "split.decode_workers=1",
        "cluster.calibration.draft_spread_frac=0.1",
    ),
    ("prefill.extra={enable_attention_dp: true}", "stack=dynamo_v1", "stack.router_mode=least-loaded"),
]


@pytest.mark.parametrize("overrides", VARIANTS)
def test_every_request_is_answered_in_order_of_its_stages(overrides: tuple[str, ...]) -> None:
    spec, calibration = short_trial(*overrides)
    log = simulate_serving(spec, calibration)
    stages = log.stages
    assert stages is not None
    assert len(log) == 400
    assert (log.error == "").all()
    assert (log.output_tokens >= 1).all()
    assert (log.input_tokens + log.output_tokens <= spec.decode.max_seq_len).all()
    times = [log.scheduled_ns, stages.prefill_queued_ns, stages.prefill_start_ns, stages.prefill_done_ns]
    times += [stages.kv_arrived_ns, stages.decode_start_ns, stages.first_made_ns]
    times += [log.first_token_ns, log.done_ns]
    for earlier, later in pairwise(times):
        assert earlier is not None
        assert later is not None
        assert (later >= earlier).all()
    assert ((log.done_ns > log.first_token_ns) == (log.output_tokens > 1)).all()
    assert set(log.prefill_worker) == set(range(spec.split.prefill_workers))
    assert set(log.decode_worker) == set(range(spec.split.decode_workers))
    for field in fields(Stages):
        assert getattr(stages, field.name).dtype == np.int64


@pytest.mark.parametrize("overrides", VARIANTS)
def test_pools_are_between_empty_and_full(overrides: tuple[str, ...]) -> None:
    spec, calibration = short_trial(*overrides)
    pools = simulate_serving(spec, calibration).pools
    assert pools is not None
    assert pools.prefill_busy_frac.shape == (spec.split.prefill_workers,)
    assert pools.decode_batch_mean.shape == (spec.split.decode_workers,)
    for used_frac in (pools.prefill_busy_frac, pools.decode_kv_used_frac):
        assert (used_frac > 0).all()
        assert (used_frac <= 1).all()
    assert (pools.decode_batch_mean <= decode_slots(spec.decode)).all()


@pytest.mark.slow
def test_compiled_and_plain_python_agree_to_the_bit() -> None:
    """Plain Python runs in another process, since Numba reads its setting when it is imported."""
    code = (
        "from test_simulator import VARIANTS, digest, run_short\n"
        "for overrides in VARIANTS: print(digest(run_short(*overrides, 'load.min_queries=150')))"
    )
    environment = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [
        digest(run_short(*overrides, "load.min_queries=150")) for overrides in VARIANTS
    ]


def test_equal_trials_give_equal_bits_and_seeds_matter() -> None:
    assert digest(run_short()) == digest(run_short())
    assert len({digest(run_short(f"load.shuffle_seed={seed}")) for seed in range(3)}) == 3
    assert len({digest(run_short(f"load.seed={seed}")) for seed in range(3)}) == 3


SLOW_LINKS = "cluster.calibration.kv_transfer_bytes_per_s=3.0e+9"


@pytest.mark.parametrize("overrides", [(), (SLOW_LINKS,), ("stack.router_mode=random",)])
def test_a_single_pool_never_waits_for_the_other(overrides: tuple[str, ...]) -> None:
    """Prefill alone has no wait for a decode slot; decode alone begins at once."""
    loaded = ("split.decode_workers=1", "load.target_qps=30", *overrides)
    spec, calibration = short_trial(*loaded)
    both, prefill, decode = (
        simulate_serving(spec, calibration, pool) for pool in (None, "prefill", "decode")
    )
    assert both.stages is not None
    assert prefill.stages is not None
    assert decode.stages is not None
    assert (prefill.stages.prefill_done_ns == both.stages.prefill_done_ns).all()
    assert (prefill.output_tokens == 1).all()
    waits = [(log.stages.decode_start_ns - log.stages.kv_arrived_ns).max() for log in (both, prefill)]
    assert waits[1] < 0.2e9 < waits[0]
    assert (decode.output_tokens == both.output_tokens).all()
    into_decode_s = (decode.stages.kv_arrived_ns - decode.scheduled_ns) / 1e9
    assert into_decode_s.max() < calibration.ttft_overhead_s + 0.05


def test_ttft_without_load_is_the_sum_of_its_parts() -> None:
    """One request arrives every hundred seconds: none waits for another."""
    overrides = ("load.dataset.inputs.kind=fixed", "load.min_queries=50", "load.target_qps=0.01")
    spec, calibration = short_trial(*overrides)
    log = simulate_serving(spec, calibration)
    assert log.stages is not None
    queue_s = (log.stages.prefill_start_ns - log.scheduled_ns) / 1e9
    transfer_s = (log.stages.kv_arrived_ns - log.stages.prefill_done_ns) / 1e9
    slot_s = (log.stages.decode_start_ns - log.stages.kv_arrived_ns) / 1e9
    prefill_s = (log.stages.prefill_done_ns - log.stages.prefill_start_ns) / 1e9
    assert queue_s == pytest.approx(calibration.ttft_overhead_s, abs=1e-8)
    assert transfer_s == pytest.approx(0.005 + 9400 * 258_048 / 100e9, abs=1e-8)
    assert np.median(slot_s) == 0
    assert np.ptp(prefill_s) < 1e-8
    parts_s = queue_s + prefill_s + transfer_s + slot_s
    assert (ttft_s(log) > parts_s + 0.02).all()


@pytest.mark.parametrize("overrides", [(), ("load.target_qps=12",), ("load.seed=4", "load.shuffle_seed=9")])
def test_littles_law(overrides: tuple[str, ...]) -> None:
    """Requests in decode slots = rate x time in a slot, over the window. Source: Little 1961."""
    log = simulate_serving(*make_trial(*overrides))
    assert log.stages is not None
    assert log.pools is not None
    last_ns = log.scheduled_ns[-1]
    start, done = (np.minimum(times, last_ns) for times in (log.stages.decode_start_ns, log.done_ns))
    assert log.pools.decode_batch_mean.sum() == pytest.approx((done - start).sum() / last_ns, rel=1e-6)


@pytest.mark.parametrize("allowed", ["longest answer", "own answer"])
def test_reserved_cache_never_exceeds_a_worker(allowed: str) -> None:
    plain = ("cluster.calibration.frontend_message_s=0.0", "split.decode_workers=2", "load.min_queries=1500")
    spec, calibration = short_trial("load.target_qps=60", *plain)
    log = simulate_serving(spec, calibration)
    longest = np.full_like(log.output_tokens, 2000) if allowed == "longest answer" else log.output_tokens
    log = simulate_requests(
        spec, calibration, log.scheduled_ns, (log.input_tokens, log.output_tokens), longest
    )
    assert log.stages is not None
    context = np.minimum(log.input_tokens + longest, spec.decode.max_seq_len)
    fullest = 0
    for worker in range(2):
        served = log.decode_worker == worker
        start, done = log.stages.decode_start_ns[served], log.done_ns[served]
        reserved = [(context[served][(start <= now) & (done > now)]).sum() for now in start]
        fullest = max(fullest, *reserved)
    capacity = kv_capacity_tokens(spec, "decode")
    assert 0.98 * capacity < fullest <= capacity


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("load.target_qps=12", "load.target_qps=16"),
        ("split.prefill_workers=14", "split.prefill_workers=12"),
        ("prefill.tensor_parallel_size=8", "prefill.tensor_parallel_size=4"),
        ("cluster.calibration.prefill_scale=0.8", "cluster.calibration.prefill_scale=1.0"),
        (
            "cluster.calibration.kv_transfer_bytes_per_s=25.0e+9",
            "cluster.calibration.kv_transfer_bytes_per_s=0.25e+9",
        ),
        ("prefill.disable_overlap_scheduler=false", "prefill.disable_overlap_scheduler=true"),
        ("load.dataset.inputs.mean_tokens=8000.0", "load.dataset.inputs.mean_tokens=9400.0"),
    ],
)
def test_mean_ttft_grows_with_worse_settings(better: str, worse: str) -> None:
    queries = "load.min_queries=3000"
    assert ttft_s(run_short(better, queries)).mean() < ttft_s(run_short(worse, queries)).mean()


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("split.decode_workers=4", "split.decode_workers=3"),
        ("decode.tensor_parallel_size=8", "decode.tensor_parallel_size=4"),
        ("decode.disable_overlap_scheduler=false", "decode.disable_overlap_scheduler=true"),
        ("decode.cuda_graph_config.enable_padding=true", "decode.cuda_graph_config.enable_padding=false"),
        ("decode.cuda_graph_config.batch_sizes=[128,256]", "decode.cuda_graph_config.batch_sizes=[512]"),
        (
            "cluster.calibration.last_decode_worker_scale=1.0",
            "cluster.calibration.last_decode_worker_scale=1.1",
        ),
        ("decode.kv_cache_config.dtype=fp8", "decode.kv_cache_config.dtype=bfloat16"),
    ],
)
def test_mean_tpot_grows_with_worse_settings(better: str, worse: str) -> None:
    queries = "load.min_queries=3000"
    assert tpot_s(run_short(better, queries)).mean() < tpot_s(run_short(worse, queries)).mean()


def test_longer_stream_intervals_unload_an_overloaded_frontend() -> None:
    """8,500 messages/s of 200 us overload it; one message for 20 tokens does not."""
    slow = ("cluster.calibration.frontend_message_s=2.0e-4", "load.min_queries=3000")
    each, bundled = run_short(*slow), run_short(*slow, "decode.stream_interval=20")
    assert ttft_s(each)[-300:].mean() > 10 * ttft_s(bundled)[-300:].mean()
    assert ttft_s(bundled).mean() == pytest.approx(
        ttft_s(run_short("load.min_queries=3000")).mean(), rel=0.01
    )


def test_a_slow_network_queues_transfers_at_the_decode_workers() -> None:
    """At 4 GB/s a worker, 9.6 GB/s arrive for each decode worker and only 2.7 leave each prefill worker."""
    log = run_short("cluster.calibration.kv_transfer_bytes_per_s=1.0e+9", "load.min_queries=1000")
    assert log.stages is not None
    transfer_s = (log.stages.kv_arrived_ns - log.stages.prefill_done_ns) / 1e9
    assert transfer_s[-100:].mean() > 3 * transfer_s[:100].mean() > 3 * 0.6


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("prefill.max_seq_len=8000", "prompt over 7999 tokens, which max_seq_len leaves"),
        ("decode.max_seq_len=8000", "prompt over 7999 tokens, which max_seq_len leaves"),
        ("prefill.enable_chunked_prefill=false", "prompt over prefill.max_num_tokens 4096 without chunked"),
        ("prefill.kv_cache_config.free_gpu_memory_fraction=0.004", "of a prefill worker's KV cache"),
        ("decode.kv_cache_config.free_gpu_memory_fraction=0.004", "of a decode worker's KV cache"),
    ],
)
def test_rejected_requests_take_no_time_and_carry_the_reason(override: str, reason: str) -> None:
    log = run_short(override)
    rejected = log.error != ""
    assert 0 < rejected.sum() < 400
    assert all(reason in text for text in log.error[rejected])
    for times in (log.first_token_ns, log.done_ns, log.prefill_worker, log.decode_worker):
        assert (times[rejected] == -1).all()
        assert (times[~rejected] >= 0).all()
    assert (log.output_tokens[rejected] == 0).all()


def test_a_model_that_does_not_fit_rejects_every_request() -> None:
    log = run_short("decode.tensor_parallel_size=1")
    assert (log.error != "").all()
    assert log.pools is not None
    assert (log.pools.decode_batch_mean == 0).all()


def test_requests_allow_the_longest_answer_by_default() -> None:
    spec, calibration = short_trial("load.target_qps=60", "split.decode_workers=1")
    log = simulate_serving(spec, calibration)
    known = log.scheduled_ns, (log.input_tokens, log.output_tokens)
    assert digest(simulate_requests(spec, calibration, *known)) == digest(log)
    shorter = simulate_requests(spec, calibration, *known, max_answer=log.output_tokens)
    assert ttft_s(shorter).mean() < ttft_s(log).mean()


def test_answers_end_at_max_seq_len() -> None:
    spec, calibration = short_trial("decode.max_seq_len=9500", "load.dataset.inputs.kind=fixed")
    log = simulate_serving(spec, calibration)
    assert log.output_tokens.max() == 100
    assert (log.output_tokens < 100).any()


def test_a_single_query_has_no_window() -> None:
    log = run_short("load.min_queries=1", "load.target_qps=0.5")
    assert len(log) == 1
    assert log.done_ns[0] > log.first_token_ns[0] > 0
    assert log.pools is not None
    assert (log.pools.prefill_busy_frac == 0).all()


@pytest.mark.parametrize("override", ["split.prefill_workers=0", "split.decode_workers=0"])
def test_an_empty_pool_is_an_error(override: str) -> None:
    with pytest.raises(ConfigurationError, match="leaves a pool empty"):
        run_short(override)
