"""The estimate of where the rack saturates, against what it serves when overloaded."""

from __future__ import annotations

import numpy as np
import pytest
from sim_trials import make_trial

from tune.results.requests import IntArray
from tune.sim.rack import simulate
from tune.sim.saturation import Saturation, saturation_qps

EVEN = "cluster.calibration.last_decode_worker_scale=1.0"
FLOOD = (EVEN, "load.concatenate_permutation=false", "load.min_queries=12000", "load.target_qps=200")
POLICY = "decode.scheduler_config={{capacity_scheduler_policy: {}}}"


def served_qps(times_ns: IntArray) -> float:
    """Rate between the first and the third quarter of what was served, away from both ends."""
    ordered_s = np.sort(times_ns) / 1e9
    first, last = len(ordered_s) // 4, 3 * len(ordered_s) // 4
    return float((last - first) / (ordered_s[last] - ordered_s[first]))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("prefill.max_num_tokens=1024",),
        ("prefill.max_batch_size=1",),
        ("prefill.enable_chunked_prefill=false", "prefill.max_num_tokens=20192"),
        ("prefill.tensor_parallel_size=2", "split.prefill_workers=20"),
        ("model=llama3_1_70b_fp4",),
    ],
)
def test_prefill_pool_serves_what_was_estimated(overrides: tuple[str, ...]) -> None:
    spec, calibration = make_trial(*FLOOD, *overrides)
    stages = simulate(spec, calibration).stages
    assert stages is not None
    estimate = saturation_qps(spec, calibration)
    assert served_qps(stages.prefill_done_ns) == pytest.approx(estimate.prefill_qps, rel=0.03)


@pytest.mark.parametrize(
    ("overrides", "tolerance"),
    [
        ((), 0.03),
        (("decode.tensor_parallel_size=8",), 0.03),
        (("decode.max_batch_size=64",), 0.03),
        (("decode.cuda_graph_config=null",), 0.03),
        ((POLICY.format("STATIC_BATCH"), "load.min_queries=3000"), 0.15),
        (("model=llama3_1_70b_fp4",), 0.03),
    ],
)
def test_decode_pool_serves_what_was_estimated(overrides: tuple[str, ...], tolerance: float) -> None:
    flooded = ("split.prefill_workers=60", "split.decode_workers=1")
    spec, calibration = make_trial(*FLOOD, *flooded, "load.min_queries=6000", *overrides)
    estimate = saturation_qps(spec, calibration)
    assert estimate.pool == "decode"
    assert served_qps(simulate(spec, calibration).done_ns) == pytest.approx(
        estimate.decode_qps, rel=tolerance
    )


def test_published_configuration_is_near_its_saturation() -> None:
    """About 18.6 QPS, 85 % used at 15.75: what queueing models of the published run say."""
    assert saturation_qps(*make_trial()).prefill_qps == pytest.approx(18.6, rel=0.03)


def test_pools_grow_with_their_workers() -> None:
    small, large = (
        saturation_qps(*make_trial(EVEN, f"split.prefill_workers={n}", f"split.decode_workers={n}"))
        for n in (2, 4)
    )
    assert large.prefill_qps == pytest.approx(2 * small.prefill_qps)
    assert large.decode_qps == pytest.approx(2 * small.decode_qps)


def test_the_slowest_decode_worker_binds_its_pool() -> None:
    scale = "cluster.calibration.last_decode_worker_scale"
    even, slow, fast = (
        saturation_qps(*make_trial(f"{scale}={value}")).decode_qps for value in (1.0, 1.25, 0.8)
    )
    assert slow == pytest.approx(even / 1.25)
    assert fast == even


def test_the_pool_that_binds() -> None:
    assert (Saturation(1.0, 2.0).qps, Saturation(1.0, 2.0).pool) == (1.0, "prefill")
    assert (Saturation(3.0, 2.0).qps, Saturation(3.0, 2.0).pool) == (2.0, "decode")


@pytest.mark.parametrize("override", ["decode.tensor_parallel_size=1", "prefill.max_seq_len=300"])
def test_a_pool_that_can_serve_nothing_saturates_at_zero(override: str) -> None:
    assert saturation_qps(*make_trial(override)).qps == 0.0
