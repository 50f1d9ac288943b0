"""Read measured runs from records and logs; refuse those that differ from the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.measured_studies import SHORT, calibration_of, logs_of, measure_trial, settings_for

from tune.analysis.measure import REQUESTS_FILE
from tune.calibrate.calibration import read_listed
from tune.calibrate.compared_metrics import ALL_METRICS, FITTED_METRICS, metrics_of_requests
from tune.calibrate.measured_runs import run_of_logs, runs_of_study
from tune.calibrate.parameters import Values
from tune.calibrate.replay import simulate_run
from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder
from tune.records.requests import read_requests
from tune.spec.calibrate_settings import ListedRun
from tune.spec.settings import Settings

NOTHING: Values = {}
PUBLISHED = Path(__file__).parents[1] / "data" / "loadgen" / "v5.0.25_published"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Return a study with a measured and an infeasible trial."""
    root = tmp_path_factory.mktemp("runs") / "s"
    measure_trial(root, *SHORT)
    return measure_trial(root, *SHORT, "prefill.enable_chunked_prefill=false", "prefill.max_num_tokens=256")


@pytest.mark.slow
def test_recorded_trial_gives_its_requests(study: StudyFolder) -> None:
    (run,) = runs_of_study(study, None)
    log = read_requests(logs_of(study) / REQUESTS_FILE)
    assert run.recorded is not None
    np.testing.assert_array_equal(run.recorded.scheduled_ns, log.scheduled_ns)
    np.testing.assert_array_equal(run.recorded.input_tokens, log.input_tokens)
    assert set(FITTED_METRICS) < set(run.metrics) <= set(ALL_METRICS)
    assert run.label.startswith("trial 0 (t")


def test_metrics_of_a_record_equal_those_of_its_requests(study: StudyFolder) -> None:
    (run,) = runs_of_study(study, [0])
    again = metrics_of_requests(read_requests(logs_of(study) / REQUESTS_FILE))
    assert run.metrics == {metric: pytest.approx(again[metric]) for metric in run.metrics}


def test_replay_with_equal_calibration_gives_equal_metrics(study: StudyFolder) -> None:
    (run,) = runs_of_study(study, None)
    (again,) = simulate_run(run, calibration_of(settings_for()), NOTHING, (5, 6))
    assert run.metrics == {metric: pytest.approx(again[metric]) for metric in run.metrics}


def test_trial_is_found_by_number_and_by_id(study: StudyFolder) -> None:
    (outcome,) = [outcome for outcome in study.outcomes() if outcome.status == "measured"]
    assert runs_of_study(study, [0])[0].label == runs_of_study(study, [outcome.trial_id])[0].label


@pytest.mark.slow
def test_trial_without_requests_is_simulated_in_several_shuffles(tmp_path: Path) -> None:
    study = measure_trial(tmp_path / "s", *SHORT)
    (logs_of(study) / REQUESTS_FILE).unlink()
    (run,) = runs_of_study(study, None)
    assert run.recorded is None
    first, second = simulate_run(run, calibration_of(settings_for()), NOTHING, (1, 2))
    assert first["ttft_s", "p99"] != second["ttft_s", "p99"]


def test_damaged_record_is_named(tmp_path: Path) -> None:
    study = measure_trial(tmp_path / "s", *SHORT)
    path = logs_of(study) / REQUESTS_FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ResumableError, match=r"requests\.npz"):
        runs_of_study(study, None)


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ([7], "found 7, which has no outcome"),
        (["t000000000000"], "t000000000000, which has no outcome"),
        ([1], "1 is infeasible"),
        ([], "found no valid run in 0 of 2 trials; expected at least one"),
    ],
)
def test_unusable_trials_are_refused(study: StudyFolder, trials: list[str | int], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        runs_of_study(study, trials)
    assert message in str(error.value)


def test_trial_without_configuration_is_refused(tmp_path: Path) -> None:
    study = measure_trial(tmp_path / "s", *SHORT)
    (study.trials()[0].root / "spec.json").unlink()
    with pytest.raises(ConfigurationError, match=r"spec\.json is missing"):
        runs_of_study(study, None)


def test_published_logs_give_their_metrics(shipped: Settings) -> None:
    run = run_of_logs(PUBLISHED, shipped.trial_spec)
    assert run.recorded is None
    assert run.metrics["ttft_s", "p99"] == pytest.approx(4.2158, abs=1e-4)
    assert run.metrics["loadgen_tps", "mean"] == 9897.52
    assert ("output_tps", "mean") not in run.metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["load.target_qps=14"], "Add load.target_qps=15.75"),
        (["load.min_duration_s=500"], "a run of 16626 queries, but the configuration gives 8313"),
        (["load.dataset.samples=8000"], "but the configuration gives 16000"),
    ],
)
def test_logs_of_another_configuration_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        run_of_logs(PUBLISHED, settings_for(*overrides).trial_spec)
    assert message in str(error.value)


def test_logs_without_token_latencies_are_refused(shipped: Settings, tmp_path: Path) -> None:
    lines = (PUBLISHED / "mlperf_log_detail.txt").read_text().splitlines()
    kept = [line for line in lines if "first_token" not in line]
    (tmp_path / "mlperf_log_detail.txt").write_text("\n".join(kept))
    with pytest.raises(ConfigurationError, match="found no mean of ttft_s, p99 of ttft_s"):
        run_of_logs(tmp_path, shipped.trial_spec)


OF_NO_VALID_RUN = {
    "v6.0.17_661_queries_1_late": "calls INVALID (early stopping of TTFT: Run unsuccessful.",
    "v6.0.17_458_queries_1_error": "calls INVALID (early stopping of TPOT: Run unsuccessful.",
    "v6.0.17_late_ttft_and_one_token_answers": "calls INVALID (TTFT constrain not met",
    "v6.0.17_accuracy": "found an accuracy run",
    "v6.0.17_offline": "found a run of the scenario Offline",
}


@pytest.mark.parametrize(("name", "words"), OF_NO_VALID_RUN.items())
def test_logs_of_no_valid_run_are_not_fitted_to(name: str, words: str, shipped: Settings) -> None:
    with pytest.raises(ConfigurationError) as error:
        run_of_logs(PUBLISHED.parent / name, shipped.trial_spec)
    assert words in str(error.value)


def test_logs_without_a_verdict_are_not_fitted_to(shipped: Settings, tmp_path: Path) -> None:
    text = (PUBLISHED / "mlperf_log_detail.txt").read_text()
    (tmp_path / "mlperf_log_detail.txt").write_text(text[: text.index('"result_validity')])
    with pytest.raises(ConfigurationError, match="no verdict of LoadGen"):
        run_of_logs(tmp_path, shipped.trial_spec)
    (tmp_path / "mlperf_log_summary.txt").write_bytes(
        (PUBLISHED / "mlperf_log_summary.txt").read_text().replace("\n", "\r\n").encode()
    )
    assert run_of_logs(tmp_path, shipped.trial_spec).metrics["loadgen_tps", "mean"] == 9897.52


def test_trial_that_is_not_valid_is_not_fitted_to(tmp_path: Path) -> None:
    study = measure_trial(tmp_path / "s", *SHORT)
    (outcome,) = study.outcomes()
    (probe,) = outcome.probes
    invalid = probe.model_copy(update={"valid": False, "reason": "40 requests; expected 459"})
    study.trial(outcome.trial_id).write_outcome(outcome.model_copy(update={"probes": (invalid,)}))
    for trials in (None, [0]):
        with pytest.raises(ConfigurationError, match=r"no valid run .*\(not valid: 40 requests"):
            runs_of_study(study, trials)


def test_folder_without_logs_is_refused(shipped: Settings, tmp_path: Path) -> None:
    with pytest.raises(ResumableError, match=r"mlperf_log_detail\.txt is missing"):
        run_of_logs(tmp_path, shipped.trial_spec)


def test_list_of_runs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text("- logs: a\n- {logs: b, overrides: [split.prefill_workers=13, stack=dynamo_v1]}\n")
    expected = (
        ListedRun(logs="a"),
        ListedRun(logs="b", overrides=("split.prefill_workers=13", "stack=dynamo_v1")),
    )
    assert read_listed(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "should be a valid array"),
        ("[]", "at least 1 item"),
        ("logs: a", "should be a valid array"),
        ("- log: a", "0.logs: Field required"),
        ("- {logs: a, overrides: [1]}", "0.overrides.0: Input should be a valid string"),
        ("- {logs: a", "expected ',' or '}'"),
        ("- logs: 2026-01-02", "not JSON serializable"),
    ],
)
def test_malformed_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"runs\.yaml cannot be read") as error:
        read_listed(path)
    assert message in str(error.value)
