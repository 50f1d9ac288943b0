"""Test that recommendations contradict no rule, no trial of the study, no capacity and no simulation."""

from __future__ import annotations

import math
import re
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.composed import composed
from support.outcomes import measured
from support.probes import breakdown
from support.request_logs import spec
from support.synthetic_study import study as study_record

from tune.analysis.recommendations import BottleneckContext, recommend
from tune.engines.base import Remedy
from tune.engines.kv_capacity import decode_batch_that_kv_holds
from tune.engines.registry import engine_of
from tune.records.outcome import Bottleneck, CapacityQps, Outcome, Recommendation
from tune.report.checked_recommendations import (
    StudyTrials,
    change_trial,
    recorded_calibration,
    with_checked_recommendations,
)
from tune.spec.metrics import TPOT_P99, TTFT_P99
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

CALIBRATION = composed().cluster.calibration
LARGER = Recommendation(text="larger chunks", overrides=("prefill.max_num_tokens=8192",))
HIGHER = Recommendation(text="a higher rate", overrides=("load.target_qps=16.5",))
WORDS = Recommendation(text="a frontend with more CPU")


def trial(*recommendations: Recommendation, **changes) -> Outcome:
    bottleneck = Bottleneck(kind="prefill", evidence="", recommendations=recommendations)
    return measured().model_copy(update={"bottleneck": bottleneck, **changes})


def left(outcome: Outcome, *others: tuple[TrialSpec, Outcome], calibration=None) -> list[str]:
    checked = with_checked_recommendations(outcome, spec(), StudyTrials(others), calibration)
    assert checked.bottleneck
    return [recommendation.text for recommendation in checked.bottleneck.recommendations]


def test_what_nothing_speaks_against_is_kept() -> None:
    assert left(trial(LARGER, HIGHER, WORDS)) == [
        "larger chunks",
        "a higher rate",
        "a frontend with more CPU",
    ]


def test_what_breaks_a_rule_is_dropped() -> None:
    wider = Recommendation(text="a wider batch", overrides=("split.prefill_workers=15",))
    assert left(trial(wider, WORDS)) == ["a frontend with more CPU"], "15P4D is larger than the rack"


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        ({"tps": 8900.0}, False),
        ({"tps": 9100.0}, True),
        ({"feasible": False, "ttft": 0.1}, False),
        ({"feasible": False, "ttft": 0.1, "qps": 17.0}, True),
        ({"tps": 8000.0, "qps": 14.0}, True),
    ],
)
def test_what_the_study_measured_and_found_no_better_is_dropped(figures: dict, kept: bool) -> None:
    other = spec("prefill.max_num_tokens=8192", "load.shuffle_seed=3")
    assert left(trial(LARGER), (other, measured(3, **figures))) == ["larger chunks"] * kept


def test_a_rate_above_the_own_capacity_or_a_measured_miss_is_dropped() -> None:
    capacity = CapacityQps(low=15.75, high=None, stopped_early=False, estimate=16.2)
    assert left(trial(HIGHER, capacity_qps=capacity)) == []
    assert left(trial(HIGHER), (spec(), measured(3, qps=16.3, feasible=False, ttft=0.1))) == []
    assert left(trial(HIGHER), (spec(), measured(3, qps=17.0, feasible=False, ttft=0.1))) == ["a higher rate"]


TWICE = Recommendation(
    text="twice the GPUs a decode worker, 14P2D",
    overrides=("decode.tensor_parallel_size=8", "split.prefill_workers=14", "split.decode_workers=2"),
)


@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ((14, 4), {"prefill": (7, 4), "decode": (14, 2)}),
        ((9, 9), {"prefill": (4, 9), "decode": (9, 4)}),
        ((1, 17), {"prefill": (1, 16), "decode": (1, 8)}),
        ((1, 5), {"prefill": (1, 5), "decode": (1, 3)}),
    ],
)
def test_a_larger_worker_has_a_split_that_fits_the_rack(
    split: tuple[int, int], expected: dict[str, tuple[int, int]], role: Role
) -> None:
    """A worker of 8 GPUs takes two nodes, of 18."""
    counts = {"prefill_workers": split[0], "decode_workers": split[1]}
    base = spec().model_copy(update={"split": spec().split.model_copy(update=counts)})
    (larger,) = engine_of(base).recommend(base, Remedy("larger_worker", role))
    changed = change_trial(base, larger.overrides)
    assert changed
    assert getattr(changed, role).gpus == 8
    assert (changed.split.prefill_workers, changed.split.decode_workers) == expected[role]
    assert larger.text == f"twice the GPUs a {role} worker, {changed.split.label}"


def test_a_larger_worker_is_recommended_only_where_it_can_run_and_was_no_worse() -> None:
    full = spec().model_copy(update={"hardware": spec().hardware.model_copy(update={"nodes": 2})})
    assert not list(engine_of(full).recommend(full, Remedy("larger_worker", "decode"))), "no room for 8 + 4"
    other = spec(*TWICE.overrides)
    assert left(trial(TWICE)) == [TWICE.text]
    assert left(trial(TWICE), (other, measured(3, tps=8900.0))) == []


@pytest.mark.slow
def test_a_larger_worker_is_simulated_also_for_a_real_rack() -> None:
    """At the shipped rate two decode workers of 8 GPUs are no better than four of 4."""
    base = {"cluster": {"calibration": CALIBRATION.model_dump(mode="json")}} if CALIBRATION else {}
    calibration = recorded_calibration(study_record(backend="slurm", base=base))
    assert left(trial(TWICE, WORDS), calibration=calibration) == [WORDS.text]
    assert (
        recorded_calibration(study_record(backend="slurm", base={"cluster": {"calibration": None}})) is None
    )


@pytest.mark.slow
def test_of_a_saturated_rack_completions_are_compared_not_latencies() -> None:
    """Latencies that grow without end would say how long the run is."""
    overloaded = trial(LARGER, TWICE).model_copy(update={"target_qps": 40.0})
    (text,) = left(overloaded, calibration=CALIBRATION)
    words = re.escape(f"{TWICE.text} (simulated: completes ") + r"(\S+) instead of (\S+) queries/s\)"
    found = re.fullmatch(words, text)
    assert found, "prefill chunks do not help a decode pool that is saturated"
    after_qps, before_qps = map(float, found.groups())
    assert 15 < before_qps < after_qps < 25


def test_what_the_simulator_cannot_time_is_kept_unsimulated() -> None:
    model = spec().model.model_copy(update={"experts": 8})
    routed = spec().model_copy(update={"model": model})
    checked = with_checked_recommendations(trial(TWICE), routed, StudyTrials(()), CALIBRATION)
    assert checked.bottleneck
    assert checked.bottleneck.recommendations == (TWICE,)


@pytest.mark.slow
def test_the_simulator_drops_what_it_expects_to_be_worse_and_states_the_rest() -> None:
    fewer = Recommendation(
        text="one more decode worker", overrides=("split.prefill_workers=13", "split.decode_workers=5")
    )
    (text,) = left(trial(LARGER, fewer, HIGHER), calibration=CALIBRATION)
    words = r"larger chunks \(simulated: holds at up to (\S+) instead of (\S+) queries/s\)"
    found = re.fullmatch(words, text)
    assert found
    after_qps, before_qps = map(float, found.groups())
    assert 15 < before_qps < after_qps < 17


OWN_RACK = (
    *("hardware=gb300_nvl72", "hardware.nodes=10", "split.prefill_workers=4", "split.decode_workers=6"),
    *("load=fixed", "load.dataset.inputs.tokens=2000", "load.dataset.outputs.tokens=300"),
    *("load.target_qps=25", "slo.ttft_p99_s=1", "slo.tpot_p99_s=0.03"),
)
"""README's example of another rack, model, workload and limits."""
LARGER_DECODE = Recommendation(
    text="twice the GPUs a decode worker",
    overrides=("split.prefill_workers=4", "split.decode_workers=3", "decode.tensor_parallel_size=8"),
)
SHIFTED = Recommendation(
    text="one more prefill worker", overrides=("split.prefill_workers=5", "split.decode_workers=5")
)


@pytest.mark.slow
def test_a_change_that_gains_no_rate_is_dropped_whatever_limit_it_frees() -> None:
    """At 25 queries/s TPOT of 4P6D is at 95 % of its limit, and prefill workers break theirs first."""
    outcome = trial(LARGER_DECODE, SHIFTED, target_qps=25.0)
    own = spec(*OWN_RACK)
    checked = with_checked_recommendations(outcome, own, StudyTrials(()), CALIBRATION)
    assert checked.bottleneck
    (kept,) = checked.bottleneck.recommendations
    found = re.search(r"holds at up to (\S+) instead of (\S+) queries/s", kept.text)
    assert found
    assert kept.overrides == SHIFTED.overrides
    after_qps, before_qps = map(float, found.groups())
    assert 30 < after_qps < 31
    assert 25.8 < before_qps < 26.5


@pytest.mark.slow
def test_where_no_rate_holds_what_frees_the_tightest_limit_is_kept() -> None:
    """A decode step takes more than 20 ms even alone, on 8 GPUs less than on 4."""
    outcome = trial(LARGER_DECODE, SHIFTED, target_qps=25.0)
    own = spec(*OWN_RACK, "slo.tpot_p99_s=0.02")
    checked = with_checked_recommendations(outcome, own, StudyTrials(()), CALIBRATION)
    assert checked.bottleneck
    (kept,) = checked.bottleneck.recommendations
    assert kept.overrides == LARGER_DECODE.overrides
    found = re.search(r"simulated: (\d+) % of the tightest limit used instead of (\d+) %", kept.text)
    assert found
    after_percent, before_percent = map(int, found.groups())
    assert 100 < after_percent < before_percent


@pytest.mark.slow
def test_a_lower_rate_is_lowered_until_the_simulator_expects_it_to_hold() -> None:
    lower = Recommendation(text="a lower rate", overrides=("load.target_qps=18",))
    outcome = trial(lower, target_qps=19.0, feasible=False)
    checked = with_checked_recommendations(outcome, spec(), StudyTrials(()), CALIBRATION)
    assert checked.bottleneck
    (found,) = checked.bottleneck.recommendations
    (override,) = found.overrides
    assert 14.5 < float(override.partition("=")[2]) < 16.5
    assert found.text == "a lower rate (the simulator expects it to hold in every shuffle)"


@cache
def composed(chunk: int, batch: int, prefill: int) -> TrialSpec:
    return spec(
        f"prefill.max_num_tokens={chunk}",
        f"decode.max_batch_size={batch}",
        f"decode.max_num_tokens={batch}",
        f"decode.cuda_graph_config.batch_sizes=[1,{batch}]",
        f"split.prefill_workers={prefill}",
        f"split.decode_workers={18 - prefill}",
    )


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(
    st.builds(
        composed,
        st.sampled_from([2048, 8192, 12288, 16384, 20000]),
        st.sampled_from([64, 256, 512]),
        st.sampled_from([2, 10, 14]),
    ),
    st.sampled_from(["prefill", "decode_slots", "decode_kv", "decode_step_time", "rate"]),
    st.floats(0.5, 1.5),
    st.floats(0.1, 0.95),
)
def test_no_recommendation_breaks_a_rule_or_goes_beyond_what_can_matter(base, kind, used, busy) -> None:
    batch = base.decode.max_sequences
    use = breakdown(prefill_utilisation=busy, decode_batch=busy * batch, decode_batch_max=busy * batch)
    context = BottleneckContext(
        kind, "queue", 15.0, None, {TTFT_P99: used, TPOT_P99: used / 2}, used > 1, use
    )
    for recommendation in recommend(base, context):
        if not recommendation.overrides:
            continue
        changed = change_trial(base, recommendation.overrides)
        if changed is None:
            continue  # dropped by the check
        longest = base.load.dataset.longest_prompt_tokens
        blocks = math.ceil(longest / base.prefill.kv_block_tokens) * base.prefill.kv_block_tokens
        assert changed.prefill.token_budget <= max(blocks, base.prefill.token_budget)
        assert changed.decode.max_sequences <= max(
            decode_batch_that_kv_holds(base), base.decode.max_sequences
        )
        assert changed != base, "a recommendation changes something"
