from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.request_logs import make_log, spec, with_stages

from tune.analysis.breakdown import TAIL_FRAC, breakdown, decode_slots
from tune.loadgen.latencies import answered
from tune.records.requests import PoolUse

TAIL = ("tail_queue_s", "tail_prefill_s", "tail_transfer_s", "tail_slot_s", "tail_first_step_s")


def broken_down(log):
    return breakdown(log, answered(log), spec().decode)


def test_tail_holds_the_slowest_first_tokens():
    log = with_stages(make_log(3000))
    use, ttft_s = broken_down(log), np.sort(log.first_token_ns - log.scheduled_ns) / 1e9
    slowest = ttft_s[-round(3000 * TAIL_FRAC) :].mean()
    assert sum(getattr(use, name) for name in TAIL) == pytest.approx(slowest, rel=1e-6)
    assert use.tail_queue_s == pytest.approx(0.4 * slowest, rel=1e-6)
    assert use.tail_queue_s > use.queue_s


def test_p99_is_the_median_of_the_tail():
    log = with_stages(make_log(5000))
    ttft = np.sort(log.first_token_ns - log.scheduled_ns)
    tail = ttft[ttft >= np.quantile(ttft, 1 - TAIL_FRAC)]
    assert np.median(tail) == pytest.approx(np.quantile(ttft, 0.99), rel=1e-3)


@given(st.integers(0, 5))
def test_uncontended_prefill_is_no_longer_than_measured(seed):
    log = with_stages(make_log(600, seed=seed))
    use = broken_down(log)
    assert 0 < use.tail_prefill_uncontended_s <= use.tail_prefill_s


def test_uncontended_prefill_excludes_time_of_other_prompts():
    """Prefill takes 1 ms a token, and nine seconds longer for the slowest prompts."""
    log = with_stages(make_log(1000))
    log.input_tokens[:] %= 2000
    own = log.input_tokens * 1_000_000
    late = np.arange(1000) < 20
    start = log.scheduled_ns
    done = start + own + np.where(late, 9_000_000_000, 0)
    stages = replace(log.stages, prefill_start_ns=start, prefill_done_ns=done)
    moved = replace(
        log,
        first_token_ns=done + 1,
        done_ns=done + 10**10,
        stages=replace(stages, kv_arrived_ns=done, decode_start_ns=done),
    )
    use = broken_down(moved)
    assert use.tail_prefill_s - use.tail_prefill_uncontended_s == pytest.approx(9.0, abs=0.6)


def test_equal_prompts_have_one_uncontended_prefill():
    """Prompts of one length whose prefill takes ever longer were alone only at the beginning."""
    log = with_stages(make_log(1000))
    log.input_tokens[:] = 6000
    start, prefill_ns = log.scheduled_ns, np.linspace(1e9, 9e9, 1000).astype(np.int64)
    stages = replace(
        log.stages,
        **dict.fromkeys(("prefill_queued_ns", "prefill_start_ns"), start),
        **dict.fromkeys(("prefill_done_ns", "kv_arrived_ns", "decode_start_ns"), start + prefill_ns),
    )
    use = broken_down(replace(log, stages=stages, first_token_ns=start + prefill_ns + 50_000_000))
    assert use.tail_prefill_s > 8.5
    assert use.tail_prefill_uncontended_s == pytest.approx(1.0)


def test_fullest_worker_is_reported_beside_the_mean():
    log = replace(
        with_stages(make_log(600)),
        pools=PoolUse(np.array([0.5, 0.9]), np.array([100.0, 140.0]), np.array([0.2])),
    )
    use = broken_down(log)
    assert (use.prefill_utilisation, use.prefill_utilisation_max) == (0.7, 0.9)
    assert (use.decode_batch, use.decode_batch_max) == (120.0, 140.0)
    assert (use.kv_used_frac, use.kv_used_frac_max) == (0.2, 0.2)
    assert use.decode_slots_frac == 120.0 / 512


def test_slots_are_limited_by_batch_and_step_tokens():
    engine = spec().decode.model_copy(update={"max_num_tokens": 96})
    assert decode_slots(engine) == 96
    assert decode_slots(spec().decode) == 512


def test_frontend_parts_are_reported_where_recorded():
    log = with_stages(make_log(600))
    nothing = broken_down(log)
    assert (nothing.frontend_in_s, nothing.frontend_out_s) == (None, None)
    queued, made = log.scheduled_ns + 250_000_000, log.first_token_ns - 10_000_000
    stages = replace(log.stages, prefill_queued_ns=queued, first_made_ns=made)
    use = broken_down(replace(log, stages=stages))
    assert (use.frontend_in_s, use.tail_frontend_in_s) == (0.25, 0.25)
    assert (use.frontend_out_s, use.tail_frontend_out_s) == (0.01, 0.01)
    queued[3] = -1
    assert broken_down(replace(log, stages=stages)).frontend_in_s is None


def test_breakdown_is_none_without_records():
    log = with_stages(make_log(600))
    assert broken_down(replace(log, stages=None, pools=None)) is None
    pools_only = broken_down(replace(log, stages=None))
    assert (pools_only.queue_s, pools_only.tail_queue_s, pools_only.decode_batch) == (None, None, 120.5)
    stages_only = broken_down(replace(log, pools=None))
    assert (stages_only.decode_batch, stages_only.decode_slots_frac) == (None, None)
    log.stages.kv_arrived_ns[:] = -1
    assert broken_down(log).tail_queue_s is None
