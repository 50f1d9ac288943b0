"""Test every consumer of the registry of metrics with all limits that it declares."""

import math
from pathlib import Path

import numpy as np
import pytest
from support.composed import composed
from support.report_page import Page
from support.request_logs import make_log, spec
from support.synthetic_study import study, synthetic_trial

from tune.analysis.measure import measure
from tune.analysis.ranking import outcome_frame, rank
from tune.analysis.shuffles import near_a_limit
from tune.analysis.slo import figure_s, mean_bound
from tune.capacity.futility import find_futility
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.config import compose_overrides, trial_overrides
from tune.core.binomial_test import max_late
from tune.errors import ConfigurationError
from tune.loadgen.latencies import answered, latencies
from tune.loadgen.log_writer import write_logs
from tune.loadgen.run_settings import loadgen_settings
from tune.records.outcome import Constraints, Outcome, Percentiles, Probe
from tune.records.requests import write_requests
from tune.report.page import write_report
from tune.report.ranking_csv import csv_columns
from tune.report.terminal import render_outcome
from tune.sim.simulator import simulate_serving
from tune.spec.load import Slo
from tune.spec.metrics import FURTHER_LIMITS, LATENCIES, LIMITS, LOADGEN_LIMITS, RATES, STATISTICS
from tune.study.optuna_proposer import OptunaProposer
from tune.surrogate.pool_limits import PoolLimits

LOG = make_log(1000)
ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "tune" / "report" / "template"
SHORT = ("load.min_duration_s=30.0", "load.concatenate_permutation=false")
LIFTED = ("slo.ttft_p99_s=null", "slo.tpot_p99_s=null")
EVERY = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.key)
FURTHER = pytest.mark.parametrize("limit", FURTHER_LIMITS, ids=lambda limit: limit.key)


@pytest.fixture(scope="module")
def tpe_settings():
    return composed("+sweep=pd_split", "search=tpe")


def limited(limit, limit_s) -> Slo:
    return Slo.model_validate({"ttft_p99_s": None, "tpot_p99_s": None, limit.key: limit_s})


def probe_under(folder, limit, limit_s):
    trial = spec(*SHORT).model_copy(update={"slo": limited(limit, limit_s)})
    write_requests(folder / "requests.npz", LOG)
    write_logs(folder, LOG, trial.load, trial.slo, int(LOG.scheduled_ns[-1]))
    return measure(folder, trial, "raw/1/probe-1")


def value_s(limit, probe) -> float:
    return figure_s(limit, probe.statistics_of(limit.latency))


def trial_under(limit, share) -> tuple[Outcome, Slo]:
    """Return a trial that uses `share` of a limit, and its SLO."""
    plain = synthetic_trial(0)
    slo = Slo(ttft_p99_s=4.5, tpot_p99_s=0.08).model_copy(update={limit.key: value_s(limit, plain) / share})
    constraints = plain.constraints.model_copy(update={limit.name: math.log(share)})
    return plain.model_copy(update={"constraints": constraints}), slo


def test_registry_names_are_unique_and_statistics_are_recorded():
    assert len({limit.key for limit in LIMITS}) == len(LATENCIES) * len(STATISTICS)
    assert {limit.key for limit in LIMITS} > set(LOADGEN_LIMITS)
    for statistic in STATISTICS:
        assert statistic.name in Percentiles.model_fields
        assert statistic.share is None or 0 < statistic.share <= 0.99
        assert statistic.title
        assert statistic.formula
    for latency in LATENCIES:
        assert latency.field in Outcome.model_fields.keys() & Probe.model_fields.keys()
        assert all((latency.title, latency.formula, latency.source, latency.unit, latency.direction))
    for rate in RATES:
        assert {rate.name} <= Outcome.model_fields.keys() & Probe.model_fields.keys()
        assert all((rate.label, rate.formula, rate.source, rate.unit, rate.direction))


def test_latency_per_request_agrees_with_latencies_of_answered_requests():
    selected = answered(LOG)
    times = latencies(LOG, selected)
    for metric in LATENCIES:
        values_ns = metric.per_request_ns(LOG)
        assert values_ns.dtype == np.int64
        has_value = selected & (LOG.output_tokens >= metric.min_tokens)
        assert np.array_equal(times[metric], values_ns[has_value])


@pytest.mark.slow
def test_every_limit_is_a_setting_that_null_lifts():
    values = {limit: 7.5 + index for index, limit in enumerate(LIMITS)}
    settings = composed(*([f"slo.{limit.key}={value}" for limit, value in values.items()]))
    assert dict(settings.slo.limits) == values
    overrides = trial_overrides(settings.trial_spec, settings)
    assert composed(*overrides).trial_spec == settings.trial_spec
    lifted = composed(*([f"slo.{limit.key}=null" for limit in LIMITS]))
    assert not lifted.slo.limits


@pytest.mark.parametrize("limit", [LIMITS[0], FURTHER_LIMITS[-1]], ids=lambda limit: limit.key)
def test_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ConfigurationError, match=f"slo.{limit.key}: found -1"):
        compose_overrides([f"slo.{limit.key}=-1"])


@FURTHER
def test_lifted_further_limit_is_absent_from_records(limit):
    slo = Slo(ttft_p99_s=4.5, tpot_p99_s=None)
    assert slo.model_dump() == {"ttft_p99_s": 4.5, "tpot_p99_s": None}
    assert limit.name not in Constraints(ttft_p99=0.1, tpot_p99=None).model_dump()
    assert Slo.model_validate_json(limited(limit, 2.0).model_dump_json()) == limited(limit, 2.0)


def test_loadgen_knows_its_own_limits_only():
    trial = spec(*SHORT)
    further = Slo.model_validate(trial.slo.model_dump() | {limit.key: 1e-3 for limit in FURTHER_LIMITS})
    last_ns = int(LOG.scheduled_ns[-1])
    assert loadgen_settings(trial.load, further, last_ns) == loadgen_settings(trial.load, trial.slo, last_ns)


@EVERY
def test_probe_is_judged_by_the_limit(limit, tmp_path):
    loose, tight = (probe_under(tmp_path, limit, limit_s) for limit_s in (1e4, 1e-4))
    assert (loose.valid, loose.feasible, loose.reason) == (True, True, None)
    assert (tight.valid, tight.feasible) == (True, False)
    assert limit.latency.label in tight.reason
    assert limit.statistic.name in tight.reason
    assert getattr(tight.constraints, limit.name) == math.log(value_s(limit, tight) / 1e-4)
    assert list(tight.constraints.used) == [limit]


@EVERY
def test_bottleneck_evidence_names_the_limit(limit, tmp_path):
    loose = probe_under(tmp_path, limit, 1e4)
    probe = probe_under(tmp_path, limit, value_s(limit, loose) / 0.9)
    assert probe.bottleneck.evidence.startswith(f"{limit.label} uses 90 % of its limit")
    assert near_a_limit(LOG, limited(limit, value_s(limit, loose) / 0.9))
    assert not near_a_limit(LOG, limited(limit, 1e4))


@EVERY
def test_run_that_cannot_hold_the_limit_is_futile(limit):
    assert find_futility(LOG, limited(limit, 1e-4), len(LOG)).queries < len(LOG)
    assert find_futility(LOG, limited(limit, 1e4), len(LOG)) is None


def least_limit_s(limit, log) -> float:
    """Return the lowest value of a limit that a run holds."""
    values_ns = np.sort(latencies(log, answered(log))[limit.latency])
    share = limit.statistic.share
    held_ns = mean_bound(values_ns).upper_ns if share is None else values_ns[-1 - max_late(len(log), share)]
    return float(held_ns) / 1e9


@pytest.mark.slow
@EVERY
def test_forecast_finds_the_highest_rate_within_the_limit(limit):
    """A limit of twice the least one that a quiet run holds admits a higher rate than one of 1.4 times."""
    trial = spec("load.min_queries=1200", "load.min_duration_s=10", "load.concatenate_permutation=false")
    calibration = composed().cluster.calibration
    log = simulate_serving(trial.model_copy(update={"load": trial.load.at(2.0)}), calibration)
    quiet_s = least_limit_s(limit, log)
    rates = []
    for factor in (1.4, 2.0):
        under = trial.model_copy(update={"slo": limited(limit, factor * quiet_s)})
        forecast = SimulatorForecast(under, calibration)
        rates.append(forecast.full_run_qps())
        assert forecast.holds_pooled(0.7 * rates[-1])
        assert not forecast.holds_pooled(3.0 * rates[-1])
    assert 2.0 < rates[0] < rates[1]


@EVERY
def test_ranking_orders_by_the_limit(limit):
    trials = [trial_under(limit, share)[0] for share in (1.5, 1.2)]
    trials = [
        trial.model_copy(update={"feasible": False, "number": number, "trial_id": f"t{number}"})
        for number, trial in enumerate(trials)
    ]
    rows = rank(trials)
    assert [row["number"] for row in rows] == [1, 0]
    assert rows[0][limit.key] == value_s(limit, trials[1])
    assert outcome_frame(trials)[f"{limit.name}_constraint"].tolist() == pytest.approx(
        [math.log(1.5), math.log(1.2)]
    )
    slo = trial_under(limit, 1.0)[1]
    assert {limit.key, f"{limit.name}_shuffles_mean_s"} <= {
        column.name for column in csv_columns(study(slo=slo))
    }


@EVERY
def test_optuna_receives_a_missed_limit(limit, tpe_settings):
    settings = tpe_settings
    proposer = OptunaProposer(settings.sweep.space, settings.search, 0)
    proposer.suggest(0)
    trial = trial_under(limit, 1.3)[0].model_copy(update={"feasible": False, "spread": None})
    proposer.observe(0, trial)
    constraints = proposer._study.trials[0].constraints
    assert max(constraints.values()) == pytest.approx(math.log(1.3))


@pytest.mark.slow
@EVERY
def test_report_shows_the_limit_everywhere(limit, tmp_path):
    trial, slo = trial_under(limit, 0.9)
    question = study(slo=slo)
    page = write_report(tmp_path, question, [trial]).read_text(encoding="utf-8")
    assert f"{limit.label} within {limit.show(getattr(slo, limit.key))}" in Page(page).text
    assert f"What does throughput cost in {limit.label}?" in page
    assert f'<p class="label">{limit.label}</p>' in page
    text = render_outcome(trial, slo, question)
    column = next(column for column in Page(page).table["limits"] if column["title"] == limit.label)
    assert (column["field"], column["unit"]) == (limit.latency.field, limit.latency.shown_unit)
    assert list(Percentiles.model_fields)[column["statistic"]] == limit.statistic.name
    assert column["limit"] == getattr(slo, limit.key) * limit.latency.shown_scale
    assert (f"limit     {limit.label} " if limit in FURTHER_LIMITS else ", 90% used") in text


@EVERY
def test_surrogate_knows_what_a_limit_demands_of_the_pools(limit):
    demands, looser = (
        PoolLimits.from_slo(limited(limit, limit_s), LOG.output_tokens).choices() for limit_s in (1.0, 2.0)
    )
    assert demands != looser
    assert demands != PoolLimits.from_slo(Slo(ttft_p99_s=None, tpot_p99_s=None), LOG.output_tokens).choices()


@pytest.mark.slow
def test_capacity_sweep_searches_by_the_surrogate_under_any_limit():
    words = ["+sweep=pd_split", "load.mode=capacity"]
    assert composed(*words).search.name == "surrogate"
    assert composed(*words, "slo.tpot_mean_s=0.05").search.name == "surrogate"


def test_templates_name_no_metric() -> None:
    """The page takes names and units of metrics from the table."""
    names = {latency.label for latency in LATENCIES} - {"latency"} | {limit.label for limit in LIMITS}
    names |= {latency.field for latency in LATENCIES} | {statistic.name for statistic in STATISTICS} - {
        "mean"
    }
    texts = {path.name: path.read_text() for path in TEMPLATES.iterdir()}
    assert {"index.html", "table.js"} <= texts.keys()
    found = [(name, word) for name, text in texts.items() for word in names if word in text]
    assert found == []
