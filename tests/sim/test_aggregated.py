"""Test trials with aggregated workers on the whole simulator: conservation, knobs, what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from support.sim_trials import digest, make_trial, short_trial, tpot_s, ttft_s

from tune.engines.check import check_simulated
from tune.sim.simulator import simulate_requests, simulate_serving
from tune.sim.step_times import StepTimes
from tune.spec.findings import only_errors
from tune.spec.step_table import StepRow
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import request_lengths

AGGREGATED = "split=aggregated"
POLICY = "aggregated.scheduler_config={{capacity_scheduler_policy: {}, context_chunking_policy: {}}}"
VARIANTS = [
    (),
    ("split.aggregated_workers=4", POLICY.format("MAX_UTILIZATION", "EQUAL_PROGRESS")),
    ("split.aggregated_workers=6", POLICY.format("STATIC_BATCH", "FIRST_COME_FIRST_SERVED")),
    ("aggregated.enable_chunked_prefill=false", "aggregated.max_num_tokens=20192"),
    ("stack=dynamo_v1", "stack.router_mode=least-loaded", "split.frontends=2"),
    ("stack.router_mode=random", "cluster.calibration.head_node_scale=1.3"),
    ("aggregated.kv_cache_config.free_gpu_memory_fraction=0.3", "load.target_qps=40"),
]


@pytest.mark.parametrize("overrides", VARIANTS)
def test_every_request_is_answered_by_one_worker(overrides: tuple[str, ...]) -> None:
    spec, calibration = short_trial(AGGREGATED, *overrides)
    log = simulate_serving(spec, calibration)
    stages, pools = log.stages, log.pools
    assert stages is not None
    assert pools is not None
    assert (log.error == "").all()
    np.testing.assert_array_equal(log.prefill_worker, log.decode_worker)
    assert set(log.decode_worker) == set(range(spec.split.aggregated_workers))
    times = [log.scheduled_ns, stages.prefill_queued_ns, stages.prefill_start_ns, stages.prefill_done_ns]
    times += [stages.first_made_ns, log.first_token_ns, log.done_ns]
    for earlier, later in pairwise(times):
        assert earlier is not None
        assert later is not None
        assert (later >= earlier).all()
    for mark in (stages.kv_arrived_ns, stages.decode_start_ns, stages.first_made_ns):
        np.testing.assert_array_equal(mark, stages.prefill_done_ns, err_msg="nothing is sent, no slot is new")
    assert ((log.done_ns > log.first_token_ns) == (log.output_tokens > 1)).all()
    for used_frac in (pools.prefill_busy_frac, pools.decode_kv_used_frac):
        assert used_frac.shape == (spec.split.aggregated_workers,)
        assert (used_frac > 0).all()
        assert (used_frac <= 1).all()
    assert (pools.decode_batch_mean <= spec.decode.max_sequences).all()
    assert digest(log) == digest(simulate_serving(spec, calibration))


@pytest.mark.parametrize(
    "change",
    [
        "aggregated.tensor_parallel_size=2",
        "aggregated.max_batch_size=4",
        "aggregated.max_num_tokens=4096",
        "aggregated.max_seq_len=8000",
        "aggregated.disable_overlap_scheduler=true",
        "aggregated.enable_chunked_prefill=false",
        "aggregated.stream_interval=20",
        "aggregated.kv_cache_config.dtype=bfloat16",
        "aggregated.kv_cache_config.free_gpu_memory_fraction=0.15",
        "aggregated.kv_cache_config.tokens_per_block=4096",
        "aggregated.cuda_graph_config=null",
        "aggregated.cuda_graph_config.batch_sizes=[64, 256]",
        POLICY.format("STATIC_BATCH", "FIRST_COME_FIRST_SERVED"),
        POLICY.format("GUARANTEED_NO_EVICT", "EQUAL_PROGRESS"),
        "split.aggregated_workers=9",
        "stack.router_mode=random",
    ],
)
def test_a_setting_of_the_pool_changes_the_simulation(change: str) -> None:
    load = (AGGREGATED, "load.target_qps=30", "load.min_queries=400", "load.min_duration_s=1.0")
    assert digest(simulate_serving(*make_trial(*load))) != digest(
        simulate_serving(*make_trial(*load, change))
    )


def test_settings_of_the_other_pools_change_nothing() -> None:
    spec, calibration = short_trial(AGGREGATED)
    other, _ = short_trial(AGGREGATED, "prefill=chunked", "decode=continuous", "decode.max_batch_size=8")
    assert digest(simulate_serving(spec, calibration)) == digest(
        simulate_serving(other.with_own_pools(), calibration)
    )


def test_larger_chunks_trade_the_time_per_token_for_the_time_to_the_first() -> None:
    """Answers wait for every step with prompts, which is the longer the larger the chunk is."""
    small, large = (
        simulate_serving(*short_trial(AGGREGATED, f"aggregated.max_num_tokens={tokens}"))
        for tokens in (1024, 8192)
    )
    assert tpot_s(small).max() < tpot_s(large).max()
    assert ttft_s(small).mean() > ttft_s(large).mean()


def test_a_lone_request_takes_the_steps_of_the_roofline() -> None:
    spec, calibration = make_trial(
        AGGREGATED,
        *("cluster.calibration.frontend_message_s=0.0", "cluster.calibration.large_batch_weight_reads=0.0"),
    )
    lengths = (np.array([6000]), np.array([3]))
    log = simulate_requests(spec, calibration, np.array([0]), lengths)
    times = StepTimes.of(spec.model, spec.hardware, spec.prefill)
    chunks, pairs = -(-6000 // 1024), 6000 * 6000 / 2
    prefill_s = calibration.prefill_scale * (
        chunks * times.prefill_step_s + 6000 * times.prefill_token_s + pairs * times.prefill_pair_s
    )
    assert ttft_s(log)[0] == pytest.approx(calibration.ttft_overhead_s + prefill_s)
    step_s = float(times.decode_batch_s(np.array([1.0]))[0]) + times.decode_context_token_s * 6001.5
    assert tpot_s(log)[0] == pytest.approx(calibration.decode_scale * step_s)


def test_a_request_without_room_is_rejected_with_the_setting_of_the_pool() -> None:
    spec, calibration = make_trial(
        AGGREGATED, "aggregated.enable_chunked_prefill=false", "aggregated.max_num_tokens=4096"
    )
    lengths = (np.array([6000, 100]), np.array([3, 3]))
    log = simulate_requests(spec, calibration, np.array([0, 1]), lengths)
    assert log.error[0] == "prompt over aggregated.max_num_tokens 4096 without chunked prefill"
    assert log.error[1] == ""


def test_tables_of_both_phases_time_mixed_steps() -> None:
    spec, calibration = short_trial(AGGREGATED)
    prefill = tuple(StepRow(1, tokens, None, 20 + 0.05 * tokens) for tokens in (1, 2048, 8192))
    decode = tuple(StepRow(batch, batch, None, 20 + 0.1 * batch) for batch in (1, 64, 256))
    tabled = calibration.model_copy(
        update={"prefill_steps": prefill, "decode_steps": decode, "prefill_scale": 1.0, "decode_scale": 1.0}
    )
    log = simulate_serving(spec, tabled)
    assert (log.error == "").all()
    assert digest(log) != digest(simulate_serving(spec, calibration))
    assert tpot_s(log).min() > 0.02


def test_the_gap_between_steps_of_a_table_follows_steps_of_both_kinds() -> None:
    spec, calibration = make_trial(AGGREGATED, "cluster.calibration.frontend_message_s=0.0")
    rows = {"prefill_steps": (StepRow(1, 1, None, 20.0), StepRow(1, 8192, None, 20.0))}
    rows["decode_steps"] = (StepRow(1, 1, None, 10.0), StepRow(64, 64, None, 10.0))
    scales = {"prefill_scale": 1.0, "decode_scale": 1.0, "ttft_overhead_s": 0.0}
    for gap_s in (0.0, 0.003):
        tabled = calibration.model_copy(update=rows | scales | {"decode_step_gap_s": gap_s})
        log = simulate_requests(spec, tabled, np.array([0]), (np.array([3000]), np.array([3])))
        assert ttft_s(log)[0] == pytest.approx(3 * (0.020 + gap_s)), "three chunks of 1,024 tokens"
        assert tpot_s(log)[0] == pytest.approx(0.010 + gap_s)


def test_what_no_step_time_is_known_for_is_refused() -> None:
    spec, calibration = short_trial(AGGREGATED, "aggregated.pipeline_parallel_size=2")
    (error,) = only_errors(check_simulated(spec, calibration))
    assert (error.path, error.found) == ("aggregated.pipeline_parallel_size", "2")
    bf16 = spec.model.model_copy(update={"weight_dtype": "bfloat16"})
    plain, _ = short_trial(AGGREGATED)
    plain = plain.model_copy(update={"model": bf16})
    rows = (StepRow(1, 1, None, 20.0), StepRow(64, 64, None, 30.0))
    half = calibration.model_copy(update={"decode_steps": rows})
    assert {error.path for error in only_errors(check_simulated(plain, half))} == {"model.weight_dtype"}
    whole = half.model_copy(update={"prefill_steps": rows})
    assert not only_errors(check_simulated(plain, whole))


@pytest.mark.slow
def test_arrivals_of_a_full_run_are_those_of_every_deployment() -> None:
    spec, calibration = make_trial(AGGREGATED, "load.target_qps=8")
    log = simulate_serving(spec, calibration)
    np.testing.assert_array_equal(log.scheduled_ns, arrivals_ns(spec.load))
    np.testing.assert_array_equal(log.input_tokens, request_lengths(spec.load, len(log))[0])


def test_no_worker_waits_for_a_cache_that_nobody_sends() -> None:
    stalls = short_trial(AGGREGATED, "cluster.calibration.kv_stall_token_s=0.001")
    assert digest(simulate_serving(*stalls)) == digest(simulate_serving(*short_trial(AGGREGATED)))
