"""Write the calibration that a search learned as settings of a simulated rack."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import composed
from support.outcomes import held_at

from tune.calibrate.calibration import learned_calibration, starting_calibration
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.config import compose_overrides
from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder
from tune.records.posterior_summary import Interval, ParameterPosterior, PosteriorSummary, write_posterior
from tune.spec.settings import Settings

QUICK = ("load.dataset.samples=1000", "load.min_duration_s=30.0", "load.min_queries=1000")
PRIOR, POSTERIOR = Interval(low=0.6, median=1.0, high=1.6), Interval(low=1.1, median=1.2, high=1.3)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    posterior = PosteriorSummary(
        schema=2,
        trials_observed=5,
        parameters=(
            ParameterPosterior(name="prefill_scale", prior=PRIOR, posterior=POSTERIOR),
            ParameterPosterior(name="kv_capacity", prior=PRIOR, posterior=POSTERIOR),
        ),
        hypotheses=(),
        trials=(),
        expected_improvement_frac=0.01,
        calibration={"prefill_scale": 1.074, "last_decode_worker_scale": 1.15},
    )
    root = tmp_path / "runs" / "split"
    root.mkdir(parents=True)
    write_posterior(root, posterior)
    return StudyFolder(root)


def settings_with(*arguments: str) -> Settings:
    return composed("action=calibrate", "calibrate.learned=split", *arguments)


@pytest.mark.slow
def test_written_file_selects_the_learned_calibration(tmp_path: Path, study: StudyFolder) -> None:
    path = tmp_path / "mine" / "cluster" / "rack7.yaml"
    settings = settings_with(f"calibrate.to={path}")
    start = starting_calibration(settings, ("sim",))
    result = learned_calibration(settings.calibrate, start, study)
    assert result.arguments == ("--config-dir", str(tmp_path / "mine"), "cluster=rack7")
    assert "kv_capacity x 1.2 (1.1 .. 1.3)" in result.text
    composed = compose_overrides(["cluster=rack7"], [str(tmp_path / "mine")]).settings.cluster.calibration
    assert composed == start.model_copy(update={"prefill_scale": 1.074, "last_decode_worker_scale": 1.15})


@pytest.mark.slow
def test_best_trials_are_simulated_with_the_learned_calibration(study: StudyFolder) -> None:
    trial = composed(*QUICK, "split.prefill_workers=13", "split.decode_workers=5")
    settings = settings_with(*QUICK)
    start = starting_calibration(settings, ())
    learned = start.model_copy(update={"prefill_scale": 1.074, "last_decode_worker_scale": 1.15})
    spec = trial.trial_spec
    true_qps = SimulatorForecast(spec, learned).capacity_qps()
    for number, capacity_qps in enumerate((0.98 * true_qps, None)):
        other_spec = spec.model_copy(update={"load": spec.load.model_copy(update={"shuffle_seed": number})})
        study.trial(other_spec.trial_id).write_spec(other_spec)
        study.trial(other_spec.trial_id).write_outcome(held_at(other_spec, capacity_qps, number))
    table = learned_calibration(settings.calibrate, start, study).text.splitlines()[-2:]
    assert table[0].split() == ["trial", "split", "measured", "this", "rack", "error", "queries/s"]
    assert table[1].split() == ["0", "13P5D", f"{0.98 * true_qps:.2f}", f"{true_qps:.2f}", "+2.0%"]
    (study.trial(spec.trial_id).root / "spec.json").unlink()
    with pytest.raises(ResumableError, match=r"spec\.json: found none"):
        learned_calibration(settings.calibrate, start, study)


@pytest.mark.slow
def test_without_a_file_overrides_are_returned(study: StudyFolder) -> None:
    settings = settings_with()
    result = learned_calibration(settings.calibrate, starting_calibration(settings, ()), study)
    assert result.arguments == (
        "cluster.calibration.prefill_scale=1.074",
        "cluster.calibration.last_decode_worker_scale=1.15",
    )
    assert composed(*result.arguments).cluster.calibration


def test_study_without_a_posterior_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    settings = settings_with()
    with pytest.raises(ConfigurationError, match=r"learned no rack.*search=surrogate"):
        learned_calibration(
            settings.calibrate, starting_calibration(settings, ()), StudyFolder(tmp_path / "other")
        )


def test_learned_calibration_excludes_a_fit() -> None:
    with pytest.raises(ConfigurationError, match=r"calibrate\.learned.*without calibrate\.study"):
        starting_calibration(settings_with("calibrate.study=other"), ())
