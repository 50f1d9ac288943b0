"""Test which workers serve the requests of a simulated run."""

from __future__ import annotations

import numpy as np
import pytest
from support.sim_trials import run_short, ttft_s


@pytest.mark.parametrize(
    ("overrides", "entry", "other", "workers"),
    [
        ((), "prefill_worker", "decode_worker", (14, 4)),
        (("split.disaggregation_strategy=decode_first",), "decode_worker", "prefill_worker", (4, 14)),
    ],
)
def test_the_frontend_routes_one_pool_and_each_endpoint_the_other(
    overrides: tuple[str, ...], entry: str, other: str, workers: tuple[int, int]
) -> None:
    """Each endpoint worker routes round-robin by its own count, as its requests arrive."""
    log = run_short(*overrides)
    assert log.stages is not None
    assert np.array_equal(getattr(log, entry), np.arange(400) % workers[0])
    order = np.argsort(log.stages.prefill_done_ns, kind="stable") if not overrides else np.arange(400)
    for worker in range(workers[0]):
        routed = getattr(log, other)[order][getattr(log, entry)[order] == worker]
        assert ((np.diff(routed) - 1) % workers[1] == 0).all()


def test_the_current_frontend_routes_both_pools() -> None:
    log = run_short("stack=dynamo_v1")
    assert log.stages is not None
    assert np.array_equal(log.prefill_worker, np.arange(400) % 14)
    by_prefill = np.argsort(log.stages.prefill_done_ns, kind="stable")
    assert np.array_equal(log.decode_worker[by_prefill], np.arange(400) % 4)


def test_each_of_several_frontends_counts_for_itself() -> None:
    log = run_short("stack=dynamo_v1", "split.frontends=3")
    worker, begins = log.prefill_worker, set()
    for frontend in range(3):
        routed = worker[frontend::3]
        assert ((np.diff(routed) - 1) % 14 == 0).all()
        begins.add(int(routed[0]))
    assert len(begins) > 1, "their counters do not begin together"


def test_decode_first_waits_longer_for_prefill() -> None:
    """Unsynchronised counts load prefill workers less evenly."""
    more = "load.min_queries=3000"
    decode_first = run_short(more, "split.disaggregation_strategy=decode_first")
    assert ttft_s(decode_first).mean() > 1.1 * ttft_s(run_short(more)).mean()


@pytest.mark.parametrize("stack", ["dynamo_v0", "dynamo_v1"])
def test_least_loaded_routing_shortens_the_wait(stack: str) -> None:
    more = (f"stack={stack}", "load.min_queries=3000")
    least_loaded, round_robin = run_short(*more, "stack.router_mode=least-loaded"), run_short(*more)
    assert np.percentile(ttft_s(least_loaded), 99) < np.percentile(ttft_s(round_robin), 99)
    assert set(least_loaded.prefill_worker) == set(range(14))


def test_random_routing_is_uneven_and_worse() -> None:
    even, uneven = (
        run_short("load.min_queries=3000"),
        run_short("load.min_queries=3000", "stack.router_mode=random"),
    )
    assert np.ptp(np.bincount(even.prefill_worker)) <= 1
    assert np.ptp(np.bincount(uneven.prefill_worker)) > 10
    assert ttft_s(uneven).mean() > ttft_s(even).mean()
