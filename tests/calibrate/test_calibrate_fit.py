"""Recover the parameters that made a run, and name those that it does not determine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.measured_studies import SHORT, WHOLE_PASS, calibration_of, logs_of, measure_trial, settings_for

from tune.calibrate.calibration import calibrate
from tune.calibrate.compared_metrics import FITTED_METRICS
from tune.calibrate.comparison import MetricComparison, compare_run, rms_error_frac
from tune.calibrate.fit import FittedParameter, fit, fitted_values
from tune.calibrate.measured_runs import MeasuredRun, run_of_logs, runs_of_study
from tune.calibrate.parameters import find_parameters
from tune.calibrate.replay import FIT_SEEDS, REPORT_SEEDS
from tune.errors import ConfigurationError
from tune.spec.settings import Settings

SCALES = ("prefill_scale", "decode_scale")
SLOWER = ("cluster.calibration.prefill_scale=0.97", "cluster.calibration.decode_scale=1.2")
TRUTH = {"prefill_scale": 0.97, "decode_scale": 1.2}


def fitted(runs: tuple[MeasuredRun, ...], names: tuple[str, ...]) -> dict[str, FittedParameter]:
    settings = settings_for()
    calibration = calibration_of(settings)
    misfits: list[float] = []
    parameters = find_parameters(names, calibration, runs[0].spec.load.dataset)
    estimates = fit(runs, calibration, parameters, misfits.append)
    assert min(misfits) < misfits[0]
    return {estimate.parameter.name: estimate for estimate in estimates}


@pytest.fixture(scope="module")
def recorded_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[MeasuredRun, ...]:
    """Measure a minute of load on a rack with slower steps, every request on record."""
    return runs_of_study(measure_trial(tmp_path_factory.mktemp("runs") / "s", *SHORT, *SLOWER), None)


@pytest.mark.slow
def test_fit_recovers_the_scales_of_a_recorded_run(recorded_runs: tuple[MeasuredRun, ...]) -> None:
    estimates = fitted(recorded_runs, SCALES)
    assert fitted_values(tuple(estimates.values())) == pytest.approx(TRUTH, rel=0.01)
    for name, estimate in estimates.items():
        assert estimate.identified
        assert estimate.low < TRUTH[name] < estimate.high


@pytest.mark.slow
def test_fit_is_reproducible_to_the_bit(recorded_runs: tuple[MeasuredRun, ...]) -> None:
    assert fitted(recorded_runs, SCALES) == fitted(recorded_runs, SCALES)


@pytest.mark.slow
def test_two_runs_are_fitted_together(tmp_path: Path, recorded_runs: tuple[MeasuredRun, ...]) -> None:
    other = measure_trial(tmp_path / "s", *SHORT, *SLOWER, "split.prefill_workers=13", "load.target_qps=13")
    single, both = (
        fitted(recorded_runs, SCALES),
        fitted((*recorded_runs, *runs_of_study(other, None)), SCALES),
    )
    assert fitted_values(tuple(both.values())) == pytest.approx(TRUTH, rel=0.01)
    assert both["prefill_scale"].prior_sd_ratio < single["prefill_scale"].prior_sd_ratio


@pytest.mark.slow
def test_fit_recovers_scales_from_logs_without_lengths(tmp_path: Path) -> None:
    study = measure_trial(tmp_path / "s", *WHOLE_PASS, *SLOWER)
    run = run_of_logs(logs_of(study), settings_for(*WHOLE_PASS).trial_spec)
    assert run.recorded is None
    estimates = fitted((run,), SCALES)
    assert fitted_values(tuple(estimates.values())) == pytest.approx(TRUTH, rel=0.03)
    assert all(estimate.identified for estimate in estimates.values())


@pytest.mark.slow
def test_distant_queue_overflow_identifies_a_parameter(
    recorded_runs: tuple[MeasuredRun, ...],
) -> None:
    estimates = fitted(recorded_runs, (*SCALES, "head_node_scale"))
    assert estimates["head_node_scale"].identified
    assert estimates["head_node_scale"].value == pytest.approx(1.0, rel=0.03)
    assert estimates["prefill_scale"].value == pytest.approx(0.97, rel=0.02)


@pytest.mark.slow
def test_fit_leaves_a_start_on_its_bound(tmp_path: Path) -> None:
    dearer = measure_trial(tmp_path / "s", *SHORT, "cluster.calibration.no_overlap_overhead_s=0.008")
    start = calibration_of(settings_for("cluster.calibration.no_overlap_overhead_s=0"))
    runs = runs_of_study(dearer, None)
    parameters = find_parameters(("no_overlap_overhead_s",), start, runs[0].spec.load.dataset)
    (estimate,) = fit(runs, start, parameters, lambda _: None)
    assert estimate.value > 0.004
    assert estimate.low < 0.008 < estimate.high


@pytest.mark.slow
def test_parameter_without_effect_is_not_identified(recorded_runs: tuple[MeasuredRun, ...]) -> None:
    estimate = fitted(recorded_runs, (*SCALES, "no_graph_overhead_s"))["no_graph_overhead_s"]
    assert estimate.prior_sd_ratio == pytest.approx(1.0, abs=0.05)
    assert not estimate.identified
    assert estimate.value == pytest.approx(estimate.parameter.start, rel=0.05)


@pytest.mark.slow
def test_value_out_of_reach_ends_at_its_bound(tmp_path: Path) -> None:
    load = ("load.target_qps=4", "load.min_duration_s=130.0")
    far = measure_trial(tmp_path / "s", *SHORT, "cluster.calibration.decode_scale=2.6", *load)
    estimate = fitted(runs_of_study(far, None), ("decode_scale",))["decode_scale"]
    assert estimate.value == estimate.parameter.bounds.high
    assert estimate.at_bound


def test_dataset_parameter_needs_a_run_without_lengths(recorded_runs: tuple[MeasuredRun, ...]) -> None:
    with pytest.raises(ConfigurationError, match="sd_tokens has no effect"):
        fitted(recorded_runs, ("prefill_scale", "load.dataset.inputs.sd_tokens"))


def test_dataset_parameter_needs_a_single_dataset(shipped: Settings) -> None:
    metrics = dict.fromkeys(FITTED_METRICS, 1.0)
    run = MeasuredRun("a", shipped.trial_spec, metrics, None)
    other = MeasuredRun("b", settings_for("load.dataset.inputs.sd_tokens=3000").trial_spec, metrics, None)
    request = shipped.calibrate.model_copy(update={"parameters": ("load.dataset.inputs.sd_tokens",)})
    with pytest.raises(ConfigurationError, match="runs of different datasets"):
        calibrate(request, calibration_of(shipped), (run, other), lambda _: None)


def test_simulator_without_answers_cannot_be_fitted(recorded_runs: tuple[MeasuredRun, ...]) -> None:
    (run,) = recorded_runs
    tiny = run.spec.model_copy(update={"decode": run.spec.decode.model_copy(update={"max_seq_len": 64})})
    refused = MeasuredRun("tiny", tiny, run.metrics, run.recorded)
    with pytest.raises(ConfigurationError, match="tiny: the simulated rack gives no"):
        fitted((refused,), SCALES)


def test_comparison_has_spread_only_for_unknown_lengths(recorded_runs: tuple[MeasuredRun, ...]) -> None:
    (run,) = recorded_runs
    calibration = calibration_of(settings_for())
    rows = compare_run(run, calibration, TRUTH)
    assert {row.metric for row in rows} == set(run.metrics)
    assert {row.metric for row in rows if row.fitted} == set(FITTED_METRICS)
    assert all(row.spread is None and abs(row.error_frac) < 1e-6 for row in rows)
    unknown = MeasuredRun("unknown", run.spec, run.metrics, None)
    assert all((row.spread or 0.0) > 0 for row in compare_run(unknown, calibration, TRUTH))


def test_rms_error_separates_fitted_and_predicted_metrics() -> None:
    rows = [
        MetricComparison(("ttft_s", "p99"), 2.0, 2.2, None),
        MetricComparison(("ttft_s", "p50"), 1.0, 0.7, None),
    ]
    assert rms_error_frac([rows], fitted=True) == pytest.approx(0.1)
    assert rms_error_frac([rows, rows], fitted=False) == pytest.approx(0.3)
    assert rms_error_frac([rows[:1]], fitted=False) is None


def test_no_seed_is_both_fitted_and_reported() -> None:
    assert not set(FIT_SEEDS) & set(REPORT_SEEDS)
    assert len(np.unique(REPORT_SEEDS)) >= 10
