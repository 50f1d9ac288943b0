"""Parameters that made a run come back from it, and those that it cannot tell are called so."""

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
    found = fit(runs, calibration, parameters, misfits.append)
    assert min(misfits) < misfits[0]
    return {one.parameter.name: one for one in found}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[MeasuredRun, ...]:
    """A minute of load on a rack with slower steps, every request on record."""
    return runs_of_study(measure_trial(tmp_path_factory.mktemp("runs") / "s", *SHORT, *SLOWER), None)


def test_a_recorded_run_gives_its_scales_back(recorded: tuple[MeasuredRun, ...]) -> None:
    found = fitted(recorded, SCALES)
    assert fitted_values(tuple(found.values())) == pytest.approx(TRUTH, rel=0.01)
    for name, one in found.items():
        assert one.identified
        assert one.low < TRUTH[name] < one.high


def test_a_fit_gives_the_same_bits_again(recorded: tuple[MeasuredRun, ...]) -> None:
    assert fitted(recorded, SCALES) == fitted(recorded, SCALES)


def test_two_runs_are_fitted_together(tmp_path: Path, recorded: tuple[MeasuredRun, ...]) -> None:
    other = measure_trial(tmp_path / "s", *SHORT, *SLOWER, "split.prefill_workers=13", "load.target_qps=13")
    alone, both = fitted(recorded, SCALES), fitted((*recorded, *runs_of_study(other, None)), SCALES)
    assert fitted_values(tuple(both.values())) == pytest.approx(TRUTH, rel=0.01)
    assert both["prefill_scale"].prior_share < alone["prefill_scale"].prior_share


@pytest.mark.slow
def test_logs_give_the_scales_back_though_lengths_are_unknown(tmp_path: Path) -> None:
    study = measure_trial(tmp_path / "s", *WHOLE_PASS, *SLOWER)
    run = run_of_logs(logs_of(study), settings_for(*WHOLE_PASS).trial_spec)
    assert run.asked is None
    found = fitted((run,), SCALES)
    assert fitted_values(tuple(found.values())) == pytest.approx(TRUTH, rel=0.03)
    assert all(one.identified for one in found.values())


def test_a_queue_that_would_boil_over_binds_though_nearby_nothing_moves(
    recorded: tuple[MeasuredRun, ...],
) -> None:
    found = fitted(recorded, (*SCALES, "head_node_scale"))
    assert found["head_node_scale"].identified
    assert found["head_node_scale"].value == pytest.approx(1.0, rel=0.03)
    assert found["prefill_scale"].value == pytest.approx(0.97, rel=0.02)


def test_a_start_on_its_bound_is_left_where_the_run_says_so(tmp_path: Path) -> None:
    dearer = measure_trial(tmp_path / "s", *SHORT, "cluster.calibration.no_overlap_overhead_s=0.008")
    start = calibration_of(settings_for("cluster.calibration.no_overlap_overhead_s=0"))
    runs = runs_of_study(dearer, None)
    parameters = find_parameters(("no_overlap_overhead_s",), start, runs[0].spec.load.dataset)
    (one,) = fit(runs, start, parameters, lambda _: None)
    assert one.value > 0.004
    assert one.low < 0.008 < one.high


def test_what_moves_nothing_stays_and_is_called_not_identified(recorded: tuple[MeasuredRun, ...]) -> None:
    one = fitted(recorded, (*SCALES, "no_graph_overhead_s"))["no_graph_overhead_s"]
    assert one.prior_share == pytest.approx(1.0, abs=0.05)
    assert not one.identified
    assert one.value == pytest.approx(one.parameter.start, rel=0.05)


def test_a_truth_out_of_reach_ends_at_its_bound(tmp_path: Path) -> None:
    far = measure_trial(tmp_path / "s", *SHORT, "cluster.calibration.decode_scale=2.6", "load.target_qps=4")
    one = fitted(runs_of_study(far, None), ("decode_scale",))["decode_scale"]
    assert one.value == one.parameter.bounds.high
    assert one.at_bound


def test_lengths_on_record_leave_nothing_to_fit_in_the_dataset(recorded: tuple[MeasuredRun, ...]) -> None:
    with pytest.raises(ConfigurationError, match="sd_tokens has no effect"):
        fitted(recorded, ("prefill_scale", "load.dataset.inputs.sd_tokens"))


def test_a_parameter_of_the_dataset_needs_one_dataset(shipped: Settings) -> None:
    figures = dict.fromkeys(FITTED_METRICS, 1.0)
    run = MeasuredRun("a", shipped.trial_spec, figures, None)
    other = MeasuredRun("b", settings_for("load.dataset.inputs.sd_tokens=3000").trial_spec, figures, None)
    asked = shipped.calibrate.model_copy(update={"parameters": ("load.dataset.inputs.sd_tokens",)})
    with pytest.raises(ConfigurationError, match="runs of different datasets"):
        calibrate(asked, calibration_of(shipped), (run, other), lambda _: None)


def test_a_rack_that_answers_nothing_cannot_be_fitted(recorded: tuple[MeasuredRun, ...]) -> None:
    (run,) = recorded
    tiny = run.spec.model_copy(update={"decode": run.spec.decode.model_copy(update={"max_seq_len": 64})})
    refused = MeasuredRun("tiny", tiny, run.figures, run.asked)
    with pytest.raises(ConfigurationError, match="tiny: the simulated rack gives no"):
        fitted((refused,), SCALES)


def test_a_comparison_counts_orders_and_errors(recorded: tuple[MeasuredRun, ...]) -> None:
    (run,) = recorded
    calibration = calibration_of(settings_for())
    rows = compare_run(run, calibration, TRUTH)
    assert {row.figure for row in rows} == set(run.figures)
    assert {row.figure for row in rows if row.fitted} == set(FITTED_METRICS)
    assert all(row.spread is None and abs(row.error_frac) < 1e-6 for row in rows)
    unknown = MeasuredRun("unknown", run.spec, run.figures, None)
    assert all((row.spread or 0.0) > 0 for row in compare_run(unknown, calibration, TRUTH))


def test_errors_of_fitted_and_predicted_figures_are_apart() -> None:
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
