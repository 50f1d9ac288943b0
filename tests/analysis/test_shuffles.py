import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.probe_logs import SHORT
from support.probe_logs import measure_log as measured
from support.request_logs import make_log, spec, with_errors, with_late_first_tokens

from tune.analysis.shuffles import (
    NEAR_FRAC,
    SHUFFLES_FILE,
    ShuffleResult,
    near_a_limit,
    read_shuffles,
    shuffle_result,
    shuffle_spread,
    write_shuffles,
)
from tune.errors import ResumableError
from tune.loadgen.latencies import percentiles_s
from tune.spec.load import Slo
from tune.spec.metrics import LATENCIES, LATENCY, TPOT, TTFT

SLO = Slo(ttft_p99_s=4.5, tpot_p99_s=0.08)
SECONDS = st.floats(0.001, 1e4)


def result(seed=1, ttft=4.0, tpot=0.05, held=True):
    return ShuffleResult(shuffle_seed=seed, ttft_p99_s=ttft, tpot_p99_s=tpot, slo_met=held)


def steady_log(ttft_s, tpot_s):
    """Return a log in which every request has the given TTFT and TPOT, with two tokens."""
    log = make_log(50)
    first_ns = log.scheduled_ns + round(ttft_s * 1e9)
    done_ns = first_ns + round(tpot_s * 1e9)
    tokens = np.full(50, 2)
    return replace(log, first_token_ns=first_ns, done_ns=done_ns, output_tokens=tokens)


RESULTS = st.lists(st.builds(result, st.integers(0, 99), SECONDS, SECONDS, st.booleans()), max_size=6)


def test_shuffle_result_has_the_figures_of_the_probe(tmp_path):
    log = make_log(3000)
    probe, one = measured(tmp_path, log), shuffle_result(log, 7, spec(*SHORT).slo)
    assert (one.shuffle_seed, one.slo_met) == (7, probe.feasible)
    assert (one.ttft_p99_s, one.tpot_p99_s) == (probe.ttft_s.p99, probe.tpot_s.p99)


def test_shuffle_is_judged_like_a_probe():
    log = make_log(3000)
    assert shuffle_result(with_late_first_tokens(log, 17, 9.0), 1, SLO).slo_met
    assert not shuffle_result(with_late_first_tokens(log, 18, 9.0), 1, SLO).slo_met


def test_shuffle_without_answers_has_no_figures_and_misses():
    one = shuffle_result(with_errors(make_log(600), slice(None), "HTTP 500"), 1, SLO)
    assert one == ShuffleResult(shuffle_seed=1, ttft_p99_s=None, tpot_p99_s=None, slo_met=False)


@given(RESULTS)
def test_shuffles_read_back_unchanged(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("probe")
    assert read_shuffles(folder) == ()
    write_shuffles(folder, drawn)
    assert read_shuffles(folder) == tuple(drawn)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"shuffles": [{"shuffle_seed": 1}]}', '{"shuffles": [], "more": 1}']
)
def test_torn_shuffles_file_is_named_in_the_error(tmp_path, text):
    (tmp_path / SHUFFLES_FILE).write_text(text)
    with pytest.raises(
        ResumableError, match=r"shuffles\.json: not a readable shuffles\.json .*expected shuffle_seed"
    ):
        read_shuffles(tmp_path)


@given(SECONDS, SECONDS, st.booleans(), RESULTS)
def test_spread_covers_the_probe_and_its_shuffles(ttft_s, tpot_s, held, drawn):
    assume(drawn)
    ttft, tpot = (percentiles_s([round(value_s * 1e9)]) for value_s in (ttft_s, tpot_s))
    over = shuffle_spread({TTFT: ttft, TPOT: tpot}, held, drawn, SLO)
    values = [ttft.p99, *(one.ttft_p99_s for one in drawn)]
    assert over.shuffles == len(drawn) + 1
    assert over.slo_met == held + sum(one.slo_met for one in drawn)
    assert (over.ttft_p99_s.min, over.ttft_p99_s.max) == (min(values), max(values))
    assert over.ttft_p99_s.mean == pytest.approx(statistics.mean(values))
    assert over.ttft_p99_s.sd == pytest.approx(statistics.stdev(values))
    assert over.tpot_p99_s.min <= tpot.p99 <= over.tpot_p99_s.max


def test_further_limit_has_its_figure_in_each_shuffle_and_its_spread():
    slo = Slo.model_validate({"ttft_p99_s": 4.5, "tpot_p99_s": None, "latency_mean_s": 60.0})
    one = shuffle_result(steady_log(4.0, 0.05), 1, slo)
    assert one.model_dump()["latency_mean_s"] == pytest.approx(4.05)
    own = {TTFT: percentiles_s([4 * 10**9]), TPOT: None, LATENCY: percentiles_s([5 * 10**9])}
    over = shuffle_spread(own, True, [one], slo)
    assert (over.latency_mean_s.min, over.latency_mean_s.max) == (pytest.approx(4.05), 5.0)


def test_file_without_further_figures_is_read_and_gives_no_spread_of_them(tmp_path):
    old = '{"shuffles": [{"shuffle_seed": 1, "ttft_p99_s": 4.0, "tpot_p99_s": 0.05, "slo_met": true}]}'
    (tmp_path / SHUFFLES_FILE).write_text(old)
    slo = SLO.model_copy(update={"latency_mean_s": 60.0})
    own = dict.fromkeys(LATENCIES, percentiles_s([10**9]))
    over = shuffle_spread(own, True, read_shuffles(tmp_path), slo)
    assert over.ttft_p99_s.max == 4.0
    assert "latency_mean_s" not in over.model_dump()


def test_spread_is_none_without_shuffles_or_with_missing_figures():
    p99 = percentiles_s([10**9])
    assert shuffle_spread({TTFT: p99, TPOT: p99}, True, (), SLO) is None
    over = shuffle_spread({TTFT: p99, TPOT: p99}, True, [result(tpot=None, held=False)], SLO)
    assert (over.shuffles, over.slo_met, over.tpot_p99_s) == (2, 1, None)
    assert over.ttft_p99_s.max == 4.0


@given(SECONDS, SECONDS)
def test_only_the_tightest_limit_decides_nearness(ttft_s, tpot_s):
    used = max(ttft_s / 4.5, tpot_s / 0.08)
    assume(abs(abs(used - 1) - NEAR_FRAC) > 1e-5)
    near = near_a_limit(steady_log(ttft_s, tpot_s), SLO)
    assert near == (1 - NEAR_FRAC < used < 1 + NEAR_FRAC)


def test_unlimited_or_unmeasured_is_not_near_a_limit():
    assert not near_a_limit(steady_log(4.0, 0.05), Slo(ttft_p99_s=None, tpot_p99_s=None))
    assert not near_a_limit(with_errors(steady_log(4.0, 0.05), slice(None), "cut"), SLO)
    assert near_a_limit(steady_log(100.0, 0.08), Slo(ttft_p99_s=None, tpot_p99_s=0.08))


def test_probe_reads_the_shuffles_in_its_folder(tmp_path):
    log = make_log(3000)
    assert measured(tmp_path, log).spread is None
    write_shuffles(tmp_path, [result(held=False), result(seed=2, ttft=5.0, held=False)])
    probe = measured(tmp_path, log)
    assert (probe.spread.shuffles, probe.spread.slo_met, probe.spread.ttft_p99_s.max) == (3, 1, 5.0)
    assert probe.feasible, "the probe's own shuffle is judged"


def test_invalid_probe_has_neither_spread_nor_bottleneck(tmp_path):
    write_shuffles(tmp_path, [result()])
    probe = measured(tmp_path, make_log(100))
    assert (probe.valid, probe.spread, probe.bottleneck) == (False, None, None)


def test_near_fraction_separates_stable_verdicts():
    """A p99 that varies by 8 % (sd) passes a limit a quarter away once in a thousand shuffles."""
    sds = NEAR_FRAC / 0.08
    assert math.erfc(sds / math.sqrt(2)) / 2 < 1e-3
