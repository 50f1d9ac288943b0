import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.request_logs import spec

from tune.analysis.bottleneck import BUSY_FRAC, ProbeSummary, find_bottleneck, is_saturated
from tune.records.outcome import Breakdown, Constraints, Recommendation

STAGES = ("queue", "prefill", "transfer", "slot", "first_step")


def use(**figures):
    """Return a breakdown of given figures; a stage without one took no time."""
    names = Breakdown.model_fields
    given_stages = any(f"tail_{name}_s" in figures for name in STAGES)
    known = {f"tail_{name}_s": 0.0 for name in STAGES} if given_stages else {}
    return Breakdown(**dict.fromkeys(names) | known | figures)


def bottleneck(breakdown=None, *, ttft=0.9, tpot=0.5, saturated=None, overrides=()):
    logs = [None if share is None else math.log(share) for share in (ttft, tpot)]
    constraints = Constraints(ttft_p99=logs[0], tpot_p99=logs[1])
    return find_bottleneck(spec(*overrides), ProbeSummary(15.75, saturated, constraints, breakdown))


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("queue", "prefill"),
        ("prefill", "prefill"),
        ("transfer", "kv_transfer"),
        ("slot", "decode_kv"),
        ("first_step", "decode_step_time"),
    ],
)
def test_longest_stage_of_slowest_first_tokens_is_the_ttft_bottleneck(stage, kind):
    times = {f"tail_{name}_s": 0.1 for name in STAGES}
    verdict = bottleneck(use(**{**times, f"tail_{stage}_s": 3.6}))
    assert verdict.kind == kind
    assert verdict.evidence.startswith("p99 TTFT uses 90 % of its limit; 90 % of the slowest 2 %")
    assert verdict.recommendations


def test_lower_rate_is_recommended_where_the_slo_is_violated_and_nowhere_else():
    lower = ("load.target_qps=15",)
    transfer = use(tail_transfer_s=3.0)
    assert bottleneck(transfer, ttft=1.01).recommendations[-1].overrides == lower
    assert bottleneck(transfer, saturated=12.0).recommendations[-1].overrides == ("load.target_qps=11.4",)
    assert bottleneck(transfer, ttft=0.99).recommendations[-1].overrides == ()
    no_room = use(tail_slot_s=3.0, prefill_utilisation=0.89)
    assert [bottleneck(no_room, ttft=share).recommendations for share in (0.99, 1.01)] == [
        (),
        (Recommendation(text="a lower rate", overrides=lower),),
    ]


def test_evidence_names_pools_without_stages():
    verdict = bottleneck(use(prefill_utilisation=0.5, decode_batch=20.0, decode_batch_max=22.0))
    assert verdict.kind == "unknown"
    assert "no record says where the time goes; prefill workers are busy 50 % of the time" in verdict.evidence
    assert "a decode worker holds 20 sequences on average" in verdict.evidence
    assert bottleneck(use(prefill_utilisation=0.7)).kind == "prefill"


def test_frontend_is_the_bottleneck_when_its_wait_is_longest():
    assert bottleneck(use(tail_queue_s=3.0, tail_frontend_in_s=2.9)).kind == "frontend"
    assert bottleneck(use(tail_queue_s=3.0, tail_frontend_in_s=0.1)).kind == "prefill"
    assert bottleneck(use(tail_first_step_s=3.0, tail_frontend_out_s=2.9)).kind == "frontend"


@pytest.mark.slow
def test_shared_prefill_counts_as_wait_and_needs_workers():
    shared = bottleneck(
        use(tail_prefill_s=3.0, tail_prefill_uncontended_s=1.0), overrides=("hardware.nodes=19",)
    )
    own = bottleneck(
        use(tail_prefill_s=3.0, tail_prefill_uncontended_s=2.9), overrides=("hardware.nodes=19",)
    )
    assert (shared.kind, own.kind) == ("prefill", "prefill")
    assert "waiting for a prefill worker or sharing it" in shared.evidence
    assert shared.recommendations[0].overrides == ("split.prefill_workers=15", "split.decode_workers=4")
    assert own.recommendations[0].overrides == (
        "prefill.tensor_parallel_size=8",
        "split.prefill_workers=7",
        "split.decode_workers=4",
    )


def test_tight_tpot_is_step_time_or_kv_cache_when_paused():
    assert bottleneck(ttft=0.4, tpot=0.95).kind == "decode_step_time"
    full = use(kv_used_frac_max=0.95)
    paused = ("decode.scheduler_config={capacity_scheduler_policy: MAX_UTILIZATION}",)
    assert bottleneck(full, ttft=0.4, tpot=0.95).kind == "decode_step_time"
    assert bottleneck(full, ttft=0.4, tpot=0.95, overrides=paused).kind == "decode_kv"


def of_latency(first_token_frac, **figures):
    """Return the bottleneck of a limit on the p90 of the end-to-end latency, 95 % of which is used."""
    constraints = Constraints(ttft_p99=None, tpot_p99=None, latency_p90=math.log(0.95))
    times = use(tail_queue_s=3.0, **figures)
    return find_bottleneck(spec(), ProbeSummary(15.75, None, constraints, times, first_token_frac)).kind


def test_latency_is_limited_by_what_grows_with_the_rate_not_by_what_is_longest():
    """A tenth of the latency that is a queue before workers without idle time grows faster than the rest."""
    assert of_latency(0.15, prefill_utilisation=0.95) == "prefill"
    assert of_latency(0.15, prefill_utilisation=1.0) == "prefill"
    assert of_latency(0.03, prefill_utilisation=0.8) == "decode_step_time"
    assert of_latency(0.15) == "decode_step_time", "the utilisation is unknown"
    assert of_latency(0.6) == "prefill"


QUEUE = {"tail_queue_s": 0.62, "tail_prefill_s": 0.38, "tail_prefill_uncontended_s": 0.38}


@pytest.mark.parametrize(
    ("busy", "ttft", "tpot", "kind"),
    [
        (0.9, 0.78, 0.95, "prefill"),
        (0.5, 0.78, 0.95, "decode_step_time"),
        (0.9, 0.5, 0.99, "decode_step_time"),
        (0.9, 1.3, 1.1, "decode_step_time"),
        (None, 0.9, 0.95, "decode_step_time"),
    ],
)
def test_the_bottleneck_is_the_limit_that_a_higher_rate_breaks_first(busy, ttft, tpot, kind):
    """The wait for busy workers grows faster than the rate, so its limit may be the less used one."""
    assert bottleneck(use(**QUEUE, prefill_utilisation=busy), ttft=ttft, tpot=tpot).kind == kind


def of_capacity(breakdown, prefill, decode, *, ttft=0.8, tpot=0.95):
    """Return the bottleneck that a capacity search finds with these pool capacities, in queries/s."""
    constraints = Constraints(ttft_p99=math.log(ttft), tpot_p99=math.log(tpot))
    pools = {"prefill": prefill, "decode": decode}
    return find_bottleneck(spec(), ProbeSummary(15.75, None, constraints, breakdown), pools)


def test_in_a_capacity_search_the_weaker_pool_is_the_bottleneck():
    queued, full = use(**QUEUE), use(tail_slot_s=3.0)
    assert of_capacity(queued, 26.26, 37.27).kind == "prefill"
    assert of_capacity(queued, 37.27, 26.26).kind == "decode_step_time"
    assert of_capacity(queued, 37.27, 26.26, ttft=0.95, tpot=0.8).kind == "decode_step_time"
    assert of_capacity(full, 37.27, 26.26, ttft=0.95, tpot=0.8).kind == "decode_kv", "a wait for slots"
    assert of_capacity(full, 26.26, 37.27).kind == "decode_step_time", "no limit is the prefill pool's"
    evidence = of_capacity(queued, 26.26, 37.27).evidence
    assert "; pool capacity in queries/s: 26.26 of the prefill pool and 37.27 of the decode pool;" in evidence


def test_half_a_worker_moves_where_the_other_pool_has_no_room_for_a_whole_one():
    (whole, *_), (half, *_) = (
        bottleneck(use(tail_slot_s=3.0, prefill_utilisation=busy)).recommendations for busy in (0.8, 0.85)
    )
    assert whole.text == "one more decode worker, 13P5D"
    assert half.text == "half the GPUs a worker in both pools, 27P9D"
    assert half.overrides == (
        *("prefill.tensor_parallel_size=2", "decode.tensor_parallel_size=2"),
        *("split.prefill_workers=27", "split.decode_workers=9"),
    )


def test_a_limit_that_is_missed_by_far_is_stated_as_a_multiple():
    assert bottleneck(ttft=181.9).evidence.startswith("p99 TTFT uses 182 times its limit")
    assert bottleneck(ttft=1.99).evidence.startswith("p99 TTFT uses 199 % of its limit")


@pytest.mark.parametrize(("ttft", "tpot"), [(0.7, 0.7), (None, 0.1), (None, None)])
def test_rate_is_the_bottleneck_far_from_every_limit(ttft, tpot):
    verdict = bottleneck(use(tail_queue_s=2.0), ttft=ttft, tpot=tpot)
    assert verdict.kind == "rate"
    assert [advice.overrides for advice in verdict.recommendations] == [("load.target_qps=16.5",)]


@pytest.mark.parametrize(("ttft", "tpot"), [(40.0, 0.9), (None, 0.99), (None, None)])
def test_saturated_rack_bottleneck_is_the_growing_stage(ttft, tpot):
    verdict = bottleneck(use(tail_slot_s=100.0), ttft=ttft, tpot=tpot, saturated=12.0)
    assert verdict.kind == "decode_kv"
    assert verdict.evidence.startswith("the rack completes 12 of 15.75 queries/s offered")


@given(st.floats(1, 100), st.integers(100, 10**6))
def test_rate_deficit_within_chance_is_no_saturation(qps, queries):
    assert is_saturated(qps, 0.5 * qps, queries)
    assert is_saturated(qps, 0.96 * qps, 20_000)
    assert not is_saturated(qps, 0.98 * qps, queries)
    assert not is_saturated(qps, qps * (1 - 2.9 / math.sqrt(queries)), queries)
    assert not is_saturated(qps, None, queries)


def test_busy_pool_is_the_bottleneck_without_stages():
    assert bottleneck(use(prefill_utilisation=0.85)).kind == "prefill"
    assert bottleneck(use(prefill_utilisation=BUSY_FRAC - 0.01)).kind == "unknown"
    assert bottleneck(None).kind == "unknown"
    assert bottleneck(None).recommendations


def test_full_decode_pool_explains_idle_prefill_workers():
    held_up = use(tail_queue_s=3.0, prefill_utilisation=0.4, decode_batch_max=160.0)
    assert bottleneck(held_up).kind == "decode_kv"
    busy = held_up.model_copy(update={"prefill_utilisation": 0.8})
    assert bottleneck(busy).kind == "prefill"


def test_slots_are_the_bottleneck_when_smaller_or_all_used():
    few = ("decode.max_batch_size=64", "decode.cuda_graph_config.batch_sizes=[64]")
    assert bottleneck(use(tail_slot_s=3.0), overrides=few).kind == "decode_slots"
    assert bottleneck(use(tail_slot_s=3.0, decode_batch_max=500.0)).kind == "decode_slots"
    verdict = bottleneck(use(tail_slot_s=3.0, decode_batch=63.0, decode_batch_max=64.0), overrides=few)
    assert "a decode worker holds 63 sequences on average" in verdict.evidence
    assert verdict.recommendations[0].overrides == (
        "decode.max_batch_size=96",
        "decode.cuda_graph_config.batch_sizes=[64,96]",
    )


@pytest.mark.parametrize(("batch", "advised"), [(96.0, None), (100.0, "up to 25"), (250.0, "up to 63")])
def test_cuda_graphs_are_those_of_one_rank_of_a_worker(batch, advised):
    """Four ranks of up to 24 sequences need no larger graphs than 24."""
    ranked = (
        *("decode.max_batch_size=64", "decode.cuda_graph_config.batch_sizes=[8,24]"),
        "+decode.extra={enable_attention_dp: true}",
    )
    slots = use(tail_slot_s=3.0, decode_batch_max=batch)
    texts = [advice.text for advice in bottleneck(slots, overrides=ranked).recommendations]
    assert [text for text in texts if "CUDA graphs" in text] == (
        [f"CUDA graphs for decode batches {advised}"] if advised else []
    )


@pytest.mark.parametrize(
    ("tpot", "first"), [(0.89, "a wider decode batch"), (0.91, "one more decode worker")]
)
def test_wider_batch_is_recommended_only_with_room_in_tpot(tpot, first):
    few = ("decode.max_batch_size=64", "decode.cuda_graph_config.batch_sizes=[64]")
    assert (
        bottleneck(use(tail_slot_s=3.0), tpot=tpot, ttft=0.95, overrides=few)
        .recommendations[0]
        .text.startswith(first)
    )


def test_pool_without_room_keeps_its_workers():
    queue = {"tail_queue_s": 3.0}
    assert "split" not in str(bottleneck(use(**queue, decode_batch=140.0)).recommendations)
    advice = bottleneck(use(**queue, decode_batch=60.0)).recommendations[0]
    assert (advice.text, advice.overrides[1]) == (
        "one more prefill worker, 15P3D",
        "split.decode_workers=3",
    )
    slot = {"tail_slot_s": 3.0}
    assert "split" not in str(bottleneck(use(**slot, prefill_utilisation=0.89)).recommendations)
    assert (
        bottleneck(use(**slot, prefill_utilisation=0.8)).recommendations[0].text
        == "one more decode worker, 13P5D"
    )


def test_settings_that_shrink_the_cache_are_recommended():
    small = ("decode.kv_cache_config.free_gpu_memory_fraction=0.5", "decode.kv_cache_config.dtype=auto")
    tried = " ".join(
        str(advice.overrides) for advice in bottleneck(use(tail_slot_s=3.0), overrides=small).recommendations
    )
    assert "free_gpu_memory_fraction=0.9" in tried
    assert "decode.kv_cache_config.dtype=fp8" in tried


def test_evidence_names_an_uneven_pool():
    slow = use(tail_first_step_s=3.0, decode_batch=100.0, decode_batch_max=130.0)
    assert "the fullest one holds 130, as a slower one would" in bottleneck(slow).evidence
    even = slow.model_copy(update={"decode_batch_max": 105.0})
    assert "slower" not in bottleneck(even).evidence
    busiest = use(tail_queue_s=3.0, prefill_utilisation=0.7, prefill_utilisation_max=0.9)
    assert "the busiest one 90 %" in bottleneck(busiest).evidence


FIGURES = {
    name: st.none() | st.floats(0, 100 if name.endswith("_s") or "batch" in name else 1)
    for name in Breakdown.model_fields
}


@given(
    st.none() | st.builds(Breakdown, **FIGURES),
    st.none() | st.floats(0.01, 100),
    st.none() | st.floats(0.01, 100),
    st.none() | st.floats(0.1, 20),
)
def test_any_figures_yield_a_bottleneck_and_a_recommendation(breakdown, ttft, tpot, saturated):
    verdict = bottleneck(breakdown, ttft=ttft, tpot=tpot, saturated=saturated)
    assert verdict.evidence
    assert verdict.recommendations
    near = max((share for share in (ttft, tpot) if share is not None), default=0.0) >= 0.75
    assert (verdict.kind == "rate") == (not near and saturated is None)
    assert "None" not in verdict.evidence
    assert "nan" not in verdict.evidence
