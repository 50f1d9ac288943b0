import math
from dataclasses import replace

import numpy as np
import pytest
from support.probe_logs import SHORT
from support.probe_logs import measure_log as measured
from support.request_logs import make_log, ns, spec, with_errors, with_late_first_tokens, with_stages

from tune.analysis.measure import measure
from tune.errors import ResumableError
from tune.loadgen.log_reader import read_logs
from tune.records.requests import write_requests


def saturated(queries=4000, offered_qps=20.0, capacity_qps=10.0, mean_service_s=30.0):
    """Return a log whose requests leave at the pool's capacity at any offered rate."""
    log = make_log(queries, offered_qps, tokens=600)
    turns = ns(np.arange(queries) / capacity_qps)
    leave = np.maximum.accumulate(log.scheduled_ns + ns(np.array(mean_service_s)) - turns) + turns
    return replace(log, first_token_ns=leave - ns(np.array(mean_service_s)), done_ns=leave)


def test_good_short_run_is_valid_and_feasible(tmp_path):
    log = make_log(3000)
    probe = measured(tmp_path, log)
    assert (probe.valid, probe.feasible, probe.reason) == (True, True, None)
    assert (probe.target_qps, probe.queries, probe.raw) == (15.75, 3000, "raw/1/probe-1")
    assert probe.output_tps_per_gpu == probe.output_tps / 72
    assert probe.output_tps == pytest.approx(log.output_tokens.mean() * 15.75, rel=0.04)
    assert probe.loadgen_tps is None
    assert probe.constraints.ttft_p99 == math.log(probe.ttft_s.p99 / 4.5)
    assert probe.constraints.tpot_p99 == math.log(probe.tpot_s.p99 / 0.080)
    assert probe.breakdown is None


def test_loadgen_figures_count_at_full_length(tmp_path):
    log = make_log(16_626)
    probe = measured(tmp_path, log, "load.target_qps=15.75")
    assert (probe.valid, probe.feasible, probe.loadgen_result) == (True, True, "VALID")
    assert probe.loadgen_tps == pytest.approx(log.output_tokens.sum() / (log.done_ns[-1] / 1e9), rel=1e-5)
    assert probe.output_tps == pytest.approx(
        probe.loadgen_tps, rel=0.05
    )  # the last query's end is in one only


@pytest.mark.slow
@pytest.mark.parametrize(
    ("queries", "passes"),
    [(16_000, "true"), (8313, "true"), (16_626, "false")],
    ids=["no whole passes", "under 600 s", "no permutation"],
)
def test_short_run_has_no_official_figure(queries, passes, tmp_path):
    probe = measured(tmp_path, make_log(queries), f"load.concatenate_permutation={passes}")
    assert (probe.valid, probe.feasible, probe.loadgen_tps) == (True, True, None)


def test_percentiles_are_those_of_the_log(tmp_path):
    probe = measured(tmp_path, make_log(3000))
    log = read_logs(tmp_path)
    for name in ("p50", "p90", "p95", "p97", "p99", "p99_9", "max"):
        for kind in ("ttft_s", "tpot_s", "latency_s"):
            assert getattr(getattr(probe, kind), name) == getattr(getattr(log, kind), name)
    assert probe.tpot_s.mean == pytest.approx(0.045, rel=0.01)


def test_a_request_exactly_at_the_limit_is_in_time(tmp_path):
    log = with_late_first_tokens(make_log(3000), 1500, 4.5)
    assert measured(tmp_path / "at", log).feasible
    log.first_token_ns[:1500] += 1
    assert not measured(tmp_path / "over", log).feasible


def test_late_requests_beyond_the_bound_violate_the_slo(tmp_path):
    log = make_log(3000)
    within = measured(tmp_path / "a", with_late_first_tokens(log, 17, 9.0))
    beyond = measured(tmp_path / "b", with_late_first_tokens(log, 18, 9.0))
    assert (within.valid, within.feasible) == (True, True)
    assert (beyond.valid, beyond.feasible) == (True, False)
    assert beyond.reason == (
        "18 of 3000 requests over the TTFT limit of 4.5 s; expected at most 17 for its p99 to hold"
    )
    assert beyond.constraints.ttft_p99 < 0  # the percentile alone would have passed


def test_tpot_is_judged(tmp_path):
    probe = measured(tmp_path, make_log(3000, tpot_s=0.09))
    assert (probe.valid, probe.feasible) == (True, False)
    assert probe.reason.startswith("3000 of 3000 requests over the TPOT limit of 0.08 s")
    assert probe.constraints.tpot_p99 > 0 > probe.constraints.ttft_p99


def test_lifted_limit_has_no_constraint(tmp_path):
    probe = measured(tmp_path, make_log(3000, tpot_s=0.09), "slo.tpot_p99_s=null", *SHORT)
    assert (probe.feasible, probe.constraints.tpot_p99) == (True, None)
    assert probe.tpot_s.p99 > 0.080


def test_a_failed_request_is_late_under_every_limit(tmp_path):
    log = with_late_first_tokens(make_log(3000), 10, 9.0)
    probe = measured(tmp_path, with_errors(log, slice(100, 108), "HTTP 500"))
    assert (probe.valid, probe.feasible) == (True, False)
    assert "18 of 3000 requests over the TTFT limit" in probe.reason


def test_loadgen_verdict_decides_a_full_run(tmp_path):
    log = make_log(16_626)
    trial = spec("load.min_duration_s=2000.0")
    measured(tmp_path, log, "load.min_duration_s=2000.0")
    probe = measure(tmp_path, trial, "raw")
    assert (probe.valid, probe.feasible, probe.loadgen_result) == (True, False, "INVALID")
    assert probe.reason.startswith("LoadGen calls the run INVALID: Increase the target QPS")


def test_full_run_without_loadgen_verdict_is_named(tmp_path):
    """A run ends with a verdict: where there is none, its logs were emptied or removed afterwards."""
    with pytest.raises(ResumableError, match=r"no verdict; expected .*raw/N\) away"):
        measured(tmp_path, make_log(16_626), "load.target_qps=15.75", logs=False)
    for name in ("mlperf_log_detail.txt", "mlperf_log_summary.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ResumableError, match=r"no verdict; expected .*raw/N\) away"):
        measure(tmp_path, spec("load.target_qps=15.75"), "raw")


def test_a_log_that_cannot_be_read_is_named(tmp_path):
    measured(tmp_path, make_log(600), logs=False)
    (tmp_path / "mlperf_log_detail.txt").mkdir()
    with pytest.raises(ResumableError, match=r"mlperf_log_detail.txt: cannot be read"):
        measure(tmp_path, spec(*SHORT), "raw")


def prompts_of_the_benchmark(path):
    return (
        f"load.dataset.path='{path}'",
        "load.dataset.sha256=null",
        "stack=dynamo_v1",
        "load.target_qps=15.75",
    )


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "accurate"), [(616, False), (617, True), (753, True), (754, False)])
def test_engine_with_wrong_answer_lengths_is_not_accurate(tokens, accurate, tmp_path):
    """The check applies to the benchmark's own prompts, not to synthetic lengths."""
    prompts = tmp_path / "prompts.pkl"
    prompts.write_bytes(b"not read")
    log = replace(make_log(16_626, tokens=tokens), output_tokens=np.full(16_626, tokens))
    for overrides, valid in (
        (prompts_of_the_benchmark(prompts), accurate),
        (("load.target_qps=15.75",), True),
    ):
        probe = measured(tmp_path / "probe-1", log, *overrides)
        assert (probe.valid, probe.feasible) == (valid, valid), probe.reason
    if not accurate:
        probe = measured(tmp_path / "probe-1", log, *prompts_of_the_benchmark(prompts))
        assert probe.reason == (
            f"answers have {tokens}.0 tokens on average; expected 616.21 to 753.15 of an engine "
            "that is accurate"
        )


def test_short_run_needs_no_loadgen_verdict(tmp_path):
    probe = measured(tmp_path, make_log(3000), logs=False)
    assert (probe.feasible, probe.target_qps) == (True, 15.75)


@pytest.mark.slow
@pytest.mark.parametrize("offered_qps", [11.0, 20.0, 40.0])
def test_saturated_pool_completes_at_its_capacity(offered_qps, tmp_path):
    probe = measured(tmp_path, saturated(4000, offered_qps), f"load.target_qps={offered_qps}", *SHORT)
    assert probe.valid
    assert probe.completed_qps == pytest.approx(10.0, rel=0.01)
    assert not probe.feasible
    assert probe.reason is not None
    assert f"of {offered_qps:g} queries/s" in probe.reason
    assert probe.reason.startswith(("saturated at 10.0", "saturated at 9.9"))


def test_warm_up_is_excluded_from_completions(tmp_path):
    """With a latency of 27 s in 190 s, completions over the whole time would be 14 % too few."""
    rates = [measured(tmp_path / str(seed), make_log(3000, seed=seed)).completed_qps for seed in range(12)]
    assert np.mean(rates) == pytest.approx(15.75, rel=0.015)


def test_breakdown_sums_to_the_mean_ttft(tmp_path):
    probe = measured(tmp_path, with_stages(make_log(3000)))
    stages = probe.breakdown
    parts = [stages.queue_s, stages.prefill_s, stages.transfer_s, stages.slot_s, stages.first_step_s]
    assert sum(parts) == pytest.approx(probe.ttft_s.mean, rel=1e-6)
    assert np.array(parts) / sum(parts) == pytest.approx([0.40, 0.30, 0.10, 0.15, 0.05], rel=1e-3)
    pools = (stages.prefill_utilisation, stages.decode_batch, stages.kv_used_frac)
    assert pools == (pytest.approx(0.7), 120.5, 0.9)


def test_unknown_stages_are_left_out_of_the_breakdown(tmp_path):
    log = with_stages(make_log(3000))
    log.stages.kv_arrived_ns[:10] = -1
    assert measured(tmp_path / "some", log).breakdown.transfer_s == pytest.approx(0.15, rel=0.01)
    log.stages.kv_arrived_ns[:] = -1
    breakdown = measured(tmp_path / "all", log).breakdown
    assert (breakdown.transfer_s, breakdown.decode_batch) == (None, 120.5)


UNTRUSTED = {
    "none answered": (
        lambda log: with_errors(log, slice(None), "connection refused"),
        "none of 3000 requests was answered, most often: connection refused; expected output tokens",
    ),
    "too many failed": (
        lambda log: with_errors(log, slice(0, 31), "HTTP 503"),
        "31 of 3000 requests unanswered (31 failed, 0 unfinished or empty), most often: HTTP 503; "
        "expected at most 1%",
    ),
    "stopped early": (
        lambda log: replace(log, done_ns=np.where(np.arange(3000) < 2900, log.done_ns, -1)),
        "100 of 3000 requests unanswered (0 failed, 100 unfinished or empty); expected at most 1%",
    ),
    "empty answers": (
        lambda log: replace(log, output_tokens=np.where(np.arange(3000) < 100, 0, log.output_tokens)),
        "100 of 3000 requests unanswered (0 failed, 100 unfinished or empty); expected at most 1%",
    ),
    "one token each": (
        lambda log: replace(log, output_tokens=np.ones(3000, np.int64)),
        "no answer of 3000 has two tokens; expected some, TPOT needs them",
    ),
    "token before arrival": (
        lambda log: replace(log, first_token_ns=np.append(log.first_token_ns[:-1], log.scheduled_ns[-1] - 1)),
        "1 requests have a token before their arrival or an end before it; expected times in order",
    ),
    "end before token": (
        lambda log: replace(log, done_ns=np.where(np.arange(3000) < 5, log.first_token_ns - 1, log.done_ns)),
        "5 requests have a token before their arrival or an end before it; expected times in order",
    ),
    "arrivals shuffled": (
        lambda log: replace(log, scheduled_ns=log.scheduled_ns[[1, 0, *range(2, 3000)]]),
        "arrivals are not in order of time; expected each at or after the one before, from 0 on",
    ),
    "client too slow": (
        lambda log: make_log(3000, qps=13.0),
        "3000 requests arrived at 12.83 a second; expected 15.75 a second",
    ),
    "all at once": (
        lambda log: replace(log, scheduled_ns=np.zeros(3000, np.int64)),
        "3000 requests arrived at all at once; expected 15.75 a second",
    ),
    "too few": (
        lambda log: make_log(458),
        "458 requests; expected at least 459 for a verdict on a p99",
    ),
    "one request": (
        lambda log: make_log(1),
        "1 requests; expected at least 459 for a verdict on a p99",
    ),
    "not settled": (
        lambda log: make_log(500),
        "for the rack to fill",
    ),
}


@pytest.mark.parametrize("kind", sorted(UNTRUSTED))
def test_invalid_measurement_states_its_reason(kind, tmp_path):
    spoil, reason = UNTRUSTED[kind]
    probe = measured(tmp_path, spoil(make_log(3000)))
    assert (probe.valid, probe.feasible) == (False, False)
    assert reason in probe.reason
    assert "expected" in probe.reason


def test_unsettled_run_is_valid_when_it_violates_the_slo(tmp_path):
    probe = measured(tmp_path, make_log(500, ttft_s=6.0))
    assert (probe.valid, probe.feasible) == (True, False)


def test_figures_without_requests_are_none(tmp_path):
    probe = measured(tmp_path, with_errors(make_log(3000), slice(None), "HTTP 500"))
    figures = (probe.ttft_s, probe.tpot_s, probe.latency_s, probe.output_tps, probe.completed_qps)
    assert figures == (None,) * 5
    assert (probe.constraints.ttft_p99, probe.constraints.tpot_p99) == (None, None)


def test_missing_record_error_says_to_run_again(tmp_path):
    with pytest.raises(ResumableError, match=r"requests.npz: not a readable request record"):
        measure(tmp_path, spec(), "raw")


def test_empty_record_error_says_to_run_again(tmp_path):
    log = make_log(2)
    empty = type(log)(*[getattr(log, name)[:0] for name in list(log.__dataclass_fields__)[:8]])
    write_requests(tmp_path / "requests.npz", empty)
    with pytest.raises(ResumableError, match="has no request; expected those of a probe"):
        measure(tmp_path, spec(), "raw")
