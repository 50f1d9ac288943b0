"""Test the worker models: CUDA graph padding, host time, pipelines and slowdowns."""

from __future__ import annotations

import numpy as np
import pytest
from support.sim_trials import make_trial

from tune.core.arrays import FloatArray
from tune.sim.step_times import StepTimes
from tune.sim.worker_models import decode_worker, prefill_worker, worker_slowdowns

PLAIN = (
    "cluster.calibration.decode_scale=1.0",
    "cluster.calibration.no_graph_overhead_s=0.5",
    "cluster.calibration.large_batch_weight_reads=0.0",
)


def batch_s(*overrides: str) -> FloatArray:
    return decode_worker(*make_trial(*PLAIN, *overrides), 0.0)[1].batch_s[:, 0]


def unpadded_s(batch: int) -> float:
    spec, _ = make_trial()
    return float(
        StepTimes.of(spec.model, spec.hardware, spec.decode).decode_batch_s(np.array([float(batch)]))[0]
    )


@pytest.mark.parametrize(
    ("batch", "computed"), [(1, 1), (3, 4), (33, 64), (128, 128), (129, 150), (512, 512)]
)
def test_batches_are_padded_to_the_next_captured_size(batch: int, computed: int) -> None:
    assert batch_s()[batch] == pytest.approx(unpadded_s(computed))


def test_order_of_captured_sizes_does_not_matter() -> None:
    sizes = "decode.cuda_graph_config.batch_sizes"
    assert np.array_equal(batch_s(f"{sizes}=[512,1,64]"), batch_s(f"{sizes}=[1,64,512]"))


def test_batches_above_the_largest_size_run_without_a_graph() -> None:
    step_s = batch_s("decode.cuda_graph_config.batch_sizes=[1,64]")
    assert step_s[64] == pytest.approx(unpadded_s(64))
    assert step_s[65] == pytest.approx(unpadded_s(65) + 0.5)


def test_without_padding_only_exact_sizes_run_a_graph() -> None:
    step_s = batch_s("decode.cuda_graph_config.enable_padding=false")
    assert step_s[64] == pytest.approx(unpadded_s(64))
    assert step_s[63] == pytest.approx(unpadded_s(63) + 0.5)


def test_without_graphs_every_step_launches_its_kernels() -> None:
    step_s = batch_s("decode.cuda_graph_config=null")
    assert step_s[1:] == pytest.approx([unpadded_s(batch) + 0.5 for batch in range(1, 513)])


def test_tokens_per_step_limit_the_slots() -> None:
    assert decode_worker(*make_trial("decode.max_num_tokens=100"), 0.0)[0].slots == 100
    assert decode_worker(*make_trial("decode.max_batch_size=100"), 0.0)[0].slots == 100


def test_scales_multiply_steps_and_host_time_is_added() -> None:
    one, other = (
        prefill_worker(*make_trial(f"cluster.calibration.prefill_scale={scale}"), 0.0) for scale in (1.0, 2.0)
    )
    host_s = make_trial()[1].no_overlap_overhead_s
    assert other.step_s - host_s == pytest.approx(2 * (one.step_s - host_s))
    assert other.token_s == pytest.approx(2 * one.token_s)
    overlapped = prefill_worker(
        *make_trial("cluster.calibration.prefill_scale=1.0", "prefill.disable_overlap_scheduler=false"), 0.0
    )
    assert one.step_s - overlapped.step_s == pytest.approx(host_s)


def test_the_calibration_slows_the_last_decode_worker() -> None:
    trial = make_trial("cluster.calibration.last_decode_worker_scale=1.5")
    assert worker_slowdowns(*trial, "decode").tolist() == [1.0, 1.0, 1.0, 1.5]
    assert (worker_slowdowns(*trial, "prefill") == 1.0).all()


def test_the_calibration_slows_workers_on_the_frontend_node() -> None:
    """Two prefill workers of two GPUs share the first node; the third is on another."""
    interference = ("cluster.calibration.head_node_scale=1.2", "prefill.tensor_parallel_size=2")
    slow = worker_slowdowns(
        *make_trial(*interference, "cluster.calibration.last_decode_worker_scale=1.0"), "prefill"
    )
    assert slow[:3].tolist() == [1.2, 1.2, 1.0]


def test_steps_above_128_sequences_read_the_weights_again() -> None:
    """A batch of 128 runs as 128, one of 129 as 150. The time is 234 GB over 4 GPUs at 8 TB/s, twice."""
    slower = batch_s("cluster.calibration.large_batch_weight_reads=2.0") - batch_s()
    assert slower[:129] == pytest.approx(0.0)
    assert slower[129:] == pytest.approx(2 * 234e9 / 4 / 8e12)


def test_pipeline_stages_share_prefill_steps_and_split_decode_batches() -> None:
    pipeline = ("prefill.pipeline_parallel_size=2", "decode.pipeline_parallel_size=2")
    single, double = (prefill_worker(*make_trial(*overrides), 0.0) for overrides in ((), pipeline))
    assert double.token_s == pytest.approx(single.token_s / 2)
    assert (single.fill_steps, double.fill_steps) == (0, 1)
    graphs = ("decode.cuda_graph_config.batch_sizes=[512]", "decode.cuda_graph_config.enable_padding=false")
    halves = batch_s(*pipeline, *graphs)
    assert halves[100] == pytest.approx(unpadded_s(50) + 0.5)
    assert halves[101] == pytest.approx(unpadded_s(51) + 0.5)


def test_each_token_of_a_cache_that_is_sent_holds_up_both_workers() -> None:
    (spec, plain), (_, stalls) = make_trial(), make_trial("cluster.calibration.kv_stall_token_s=0.00001")
    token_s = [prefill_worker(spec, calibration, 0.0).token_s for calibration in (plain, stalls)]
    assert token_s[1] - token_s[0] == pytest.approx(1e-5)
    received_s = [decode_worker(spec, calibration, 0.0)[0].stall_token_s for calibration in (plain, stalls)]
    assert received_s == [0.0, 1e-5]
