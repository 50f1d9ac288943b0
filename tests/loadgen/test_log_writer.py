import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.request_logs import make_log, spec, with_errors, with_late_first_tokens

from tune.errors import ConfigurationError
from tune.loadgen.latencies import answered
from tune.loadgen.log_reader import read_logs
from tune.loadgen.log_writer import write_logs
from tune.spec.load import Slo

LOGS = Path(__file__).parents[1] / "data" / "loadgen"
DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"
LIMITS = Slo(ttft_p99_s=4.5, tpot_p99_s=0.080)
GAPS_NS = 63_500_000_000
SHORT = ("load.min_duration_s=10.0", "load.concatenate_permutation=false")


def entries(path: Path) -> dict[str, object]:
    lines = path.read_text().splitlines()
    records = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    return {record["key"]: record["value"] for record in records}


def written(folder, log, *overrides, slo=LIMITS):
    write_logs(folder, log, spec(*(overrides or SHORT)).load, slo, GAPS_NS)
    return read_logs(folder)


@pytest.mark.parametrize(
    ("golden", "queries", "late"),
    [("458_queries", 458, 0), ("661_queries_1_late", 661, 1), ("662_queries_1_late", 662, 1)],
)
def test_verdict_and_notes_equal_loadgens(golden, queries, late, tmp_path):
    log = make_log(queries, tokens=10)
    written(tmp_path, with_late_first_tokens(log, late, 9.0))
    theirs, ours = entries(LOGS / f"v6.0.17_{golden}" / DETAIL), entries(tmp_path / DETAIL)
    judged = [
        key
        for key in theirs
        if key.startswith(("result_v", "result_p", "result_min_d", "result_min_q", "early"))
    ]
    assert len(judged) == 7
    assert {key: ours[key] for key in judged} == {key: theirs[key] for key in judged}


def test_late_and_one_token_answers_are_booked_like_loadgen(tmp_path):
    """700 queries, 9 late: LoadGen asks for 1174 more and says TTFT; 20 answers of one token are errors."""
    log = with_late_first_tokens(make_log(700, tokens=10), 9, 9.0)
    log = replace(log, output_tokens=np.where(np.arange(700) < 20, 1, log.output_tokens))
    ours = written(tmp_path, log)
    theirs = read_logs(LOGS / "v6.0.17_late_ttft_and_one_token_answers")
    for name in (
        "result",
        "invalid_reason",
        "early_stopping_ttft",
        "early_stopping_tpot",
        "errors",
        "queries",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.tpot_s.min < 0 > theirs.tpot_s.min
    assert ours.tps * (log.done_ns[-1] / 1e9) == pytest.approx(log.output_tokens[20:].sum(), rel=1e-5)


def test_every_key_and_type_equals_loadgens(tmp_path):
    written(tmp_path, with_late_first_tokens(make_log(700), 9, 9.0))
    theirs = entries(LOGS / "v6.0.17_late_ttft_and_one_token_answers" / DETAIL)
    ours = entries(tmp_path / DETAIL)
    numbers = (int, float)
    for key, value in ours.items():
        kind = numbers if type(theirs[key]) in numbers else type(theirs[key])
        assert isinstance(value, kind), key
    results = {key for key in theirs if key.startswith(("result_", "early_", "num_"))}
    assert results - set(ours) == {"result_overlatency_query_count", "result_token_throughput"}


@pytest.mark.slow
@pytest.mark.parametrize("fewest", [1, 701])
def test_summary_and_detail_agree(fewest, tmp_path):
    late = with_late_first_tokens(make_log(700), 9, 9.0)
    detail = written(tmp_path, late, f"load.min_queries={fewest}", *SHORT)
    (tmp_path / DETAIL).unlink()
    summary = read_logs(tmp_path)
    assert summary.tps == pytest.approx(detail.tps, rel=1e-4)
    for name in (
        "result",
        "invalid_reason",
        "early_stopping_ttft",
        "ttft_s",
        "tpot_s",
        "latency_s",
        "errors",
    ):
        assert getattr(summary, name) == getattr(detail, name), name


def test_tokens_per_second_end_with_the_last_issued_query(tmp_path):
    log = make_log(500)
    log.done_ns[7] += 10**12
    tokens, last_s = log.output_tokens.sum(), log.done_ns[-1] / 1e9
    figures = written(tmp_path, log)
    assert figures.tps == pytest.approx(tokens / last_s, rel=1e-5)
    assert figures.scheduled_tps == pytest.approx(tokens / (log.scheduled_ns[-1] / 1e9), rel=1e-5)
    assert figures.completed_qps == pytest.approx(499 / last_s, rel=1e-5)
    assert figures.scheduled_qps == pytest.approx(499 / (log.scheduled_ns[-1] / 1e9), rel=1e-5)


def test_published_token_rates_share_one_token_count():
    """The published figures fit: one token count, over the schedule and until the last-issued query."""
    log = read_logs(LOGS / "v5.0.25_published")
    last_arrival_s = (log.queries - 1) / log.scheduled_qps
    last_done_s = (log.queries - 1) / log.completed_qps
    assert log.tps * last_done_s == pytest.approx(log.scheduled_tps * last_arrival_s, rel=1e-4)
    assert last_done_s - last_arrival_s == pytest.approx(2.1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "queries", "reason"),
    [
        (
            ("load.min_duration_s=600.0",),
            1000,
            "Increase the target QPS so the loadgen pre-generates more queries.",
        ),
        (
            ("load.min_queries=1001", *SHORT),
            1000,
            "The test exited early, before enough queries were issued.",
        ),
    ],
)
def test_too_short_run_is_invalid(overrides, queries, reason, tmp_path):
    figures = written(tmp_path, make_log(queries), *overrides)
    assert (figures.result, figures.invalid_reason) == ("INVALID", reason)
    assert figures.perf_constraints_met
    assert figures.early_stopping_met


def test_run_of_exactly_minimum_length_is_valid(tmp_path):
    figures = written(tmp_path, make_log(1000), "load.min_queries=1000", *SHORT)
    assert (figures.result, figures.min_queries_met) == ("VALID", True)


def test_a_request_exactly_at_the_limit_is_in_time(tmp_path):
    log = with_late_first_tokens(make_log(1000), 500, 4.5)
    assert written(tmp_path, log).result == "VALID"
    log.first_token_ns[:500] += 1
    figures = written(tmp_path, log)
    assert (figures.result, figures.early_stopping_met) == ("INVALID", False)


def test_both_missed_limits_are_named(tmp_path):
    figures = written(tmp_path, make_log(1000, ttft_s=5.0, tpot_s=0.1))
    assert figures.invalid_reason.count("constrain not met") == 2
    assert figures.early_stopping_ttft == ""  # LoadGen looks no further than TPOT


def test_lifted_limits_are_never_missed(tmp_path):
    log = make_log(1000, ttft_s=500.0, tpot_s=10.0)
    figures = written(tmp_path, log, slo=Slo(ttft_p99_s=None, tpot_p99_s=None))
    assert (figures.result, figures.ttft_limit_s, figures.tpot_limit_s) == ("VALID", None, None)


def test_schedule_is_stated_as_requested(tmp_path):
    write_logs(tmp_path, make_log(1000), spec("load.seed=7", *SHORT).load, LIMITS, GAPS_NS)
    entry = entries(tmp_path / DETAIL)
    assert (entry["generated_query_count"], entry["generated_query_duration"]) == (1000, GAPS_NS)
    seeds = [entry[f"effective_{name}_rng_seed"] for name in ("qsl", "sample_index", "schedule")]
    theirs = entries(LOGS / "v5.0.25_published" / DETAIL)
    assert seeds[:2] == [theirs["effective_qsl_rng_seed"], theirs["effective_sample_index_rng_seed"]]
    assert seeds[2] == 7


@pytest.mark.parametrize(("limit_s", "reported_s"), [(4.5, 4.501), (None, 0.0)])
def test_requests_without_first_token_are_reported_as_late_errors(limit_s, reported_s, tmp_path):
    log = with_errors(make_log(1000), slice(0, 30), 'HTTP 503: "busy"')
    figures = written(tmp_path, log, slo=Slo(ttft_p99_s=limit_s, tpot_p99_s=0.08))
    assert (figures.result, figures.errors) == ("VALID" if limit_s is None else "INVALID", 30)
    assert (figures.ttft_s.max == reported_s) == (limit_s is not None)
    assert (figures.ttft_s.min == reported_s) == (limit_s is None)
    assert figures.tpot_s.min == 0.0
    text = (tmp_path / DETAIL).read_text()
    assert 'HTTP 503: \\"busy\\"' in text
    assert "30 ERRORS encountered" in (tmp_path / SUMMARY).read_text()


@pytest.mark.parametrize(("limit_s", "reported_s"), [(0.08, 0.081), (None, 0.0)])
def test_broken_off_requests_are_reported_as_two_late_tokens(limit_s, reported_s, tmp_path):
    log = make_log(1000)
    broken = np.arange(1000) < 30
    log = replace(
        log,
        done_ns=np.where(broken, -1, log.done_ns),
        output_tokens=np.where(broken, 0, log.output_tokens),
        error=np.where(broken, "cut", ""),
    )
    figures = written(tmp_path, log, slo=Slo(ttft_p99_s=4.5, tpot_p99_s=limit_s))
    assert (figures.result, figures.errors) == ("VALID" if limit_s is None else "INVALID", 0)
    assert reported_s == (figures.tpot_s.min if limit_s is None else figures.tpot_s.max)
    tokens = log.output_tokens.sum() + 30 * 2
    assert figures.tps * (log.done_ns[-1] / 1e9) == pytest.approx(tokens, rel=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    queries=st.integers(1, 800),
    ttft_s=st.floats(0.01, 10),
    tpot_s=st.floats(0.001, 0.2),
    tokens=st.integers(2, 2000),
    failed=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_written_record_equals_the_one_read(tmp_path, queries, failed, **shape):
    log = with_errors(make_log(queries, **shape), slice(0, failed), "timeout")
    figures = written(tmp_path, log)
    good = answered(log)
    latency = np.where(good, log.done_ns - log.scheduled_ns, 4501 * 10**6) / 1e9
    ttft = np.where(good, log.first_token_ns - log.scheduled_ns, 4501 * 10**6) / 1e9
    for values, read in ((latency, figures.latency_s), (ttft, figures.ttft_s)):
        assert read.min == pytest.approx(values.min(), abs=1e-9)
        assert read.max == pytest.approx(values.max(), abs=1e-9)
        assert read.mean == pytest.approx(values.mean(), abs=2e-9)
        for name, share in (
            ("p50", 0.5),
            ("p90", 0.9),
            ("p95", 0.95),
            ("p97", 0.97),
            ("p99", 0.99),
            ("p99_9", 0.999),
        ):
            assert (values <= getattr(read, name) + 1e-12).mean() >= share
            assert (values < getattr(read, name) - 1e-12).mean() <= share
    assert (figures.queries, figures.errors) == (queries, (~good).sum())
    assert figures.perf_constraints_met == (figures.ttft_s.p99 <= 4.5 and figures.tpot_s.p99 <= 0.080)
    assert (figures.result == "VALID") == all(
        (
            figures.perf_constraints_met,
            figures.min_duration_met,
            figures.min_queries_met,
            figures.early_stopping_met,
        )
    )
    assert not (figures.early_stopping_met and not figures.perf_constraints_met)


def test_single_query_has_no_rate(tmp_path):
    figures = written(tmp_path, make_log(1), slo=LIMITS)
    assert (figures.scheduled_qps, figures.scheduled_tps, figures.result) == (None, None, "INVALID")
    assert math.isfinite(figures.tps)


def test_record_without_queries_raises(tmp_path):
    with pytest.raises(ValueError, match="a record without requests"):
        write_logs(tmp_path, make_log(1).__class__(*[np.array([])] * 8), spec().load, LIMITS, GAPS_NS)


def test_unwritable_folder_raises_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigurationError, match=r"mlperf_log_detail.txt: cannot be written \(.*\); expected a folder"
    ):
        write_logs(tmp_path / "file", make_log(5), spec().load, LIMITS, GAPS_NS)
