"""A rack that a search learned, as settings of a simulated one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune.analysis.judge import judge_infeasible
from tune.calibrate.calibration import learned_calibration, starting_calibration
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.config import compose_overrides
from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder
from tune.records.outcome import CapacityQps
from tune.records.posterior_summary import Interval, ParameterPosterior, PosteriorSummary, write_posterior
from tune.spec.settings import Settings

QUICK = ("load.dataset.samples=1000", "load.min_duration_s=30.0", "load.min_queries=1000")
BEFORE, NOW = Interval(low=0.6, median=1.0, high=1.6), Interval(low=1.1, median=1.2, high=1.3)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    belief = PosteriorSummary(
        schema=2,
        trials_told=5,
        parameters=(
            ParameterPosterior(name="prefill_scale", before=BEFORE, now=NOW),
            ParameterPosterior(name="kv_capacity", before=BEFORE, now=NOW),
        ),
        hypotheses=(),
        trials=(),
        expected_gain_frac=0.01,
        calibration={"prefill_scale": 1.074, "last_decode_worker_scale": 1.15},
    )
    root = tmp_path / "runs" / "split"
    root.mkdir(parents=True)
    write_posterior(root, belief)
    return StudyFolder(root)


def asked(*words: str) -> Settings:
    return compose_overrides(["action=calibrate", "calibrate.learned=split", *words]).settings


def test_the_file_selects_what_is_believed(tmp_path: Path, study: StudyFolder) -> None:
    path = tmp_path / "mine" / "cluster" / "rack7.yaml"
    settings = asked(f"calibrate.to={path}")
    start = starting_calibration(settings, ("sim",))
    found = learned_calibration(settings.calibrate, start, study)
    assert found.words == ("--config-dir", str(tmp_path / "mine"), "cluster=rack7")
    assert "kv_capacity x 1.2 (1.1 .. 1.3)" in found.text
    composed = compose_overrides(["cluster=rack7"], [str(tmp_path / "mine")]).settings.cluster.calibration
    assert composed == start.model_copy(update={"prefill_scale": 1.074, "last_decode_worker_scale": 1.15})


def test_the_best_trials_are_simulated_on_the_rack_as_it_is_saved(study: StudyFolder) -> None:
    trial = compose_overrides([*QUICK, "split.prefill_workers=13", "split.decode_workers=5"]).settings
    settings = asked(*QUICK)
    start = starting_calibration(settings, ())
    rack = start.model_copy(update={"prefill_scale": 1.074, "last_decode_worker_scale": 1.15})
    spec = trial.trial_spec
    true_qps = SimulatorForecast(spec, rack).capacity_qps()
    for number, capacity_qps in enumerate((0.98 * true_qps, None)):
        facts = {"number": number, "source": "surrogate", "attempts": (), "provenance": {}}
        lowest = spec.model_copy(update={"load": spec.load.model_copy(update={"shuffle_seed": number})})
        outcome = judge_infeasible(lowest, reason="", **facts)  # type: ignore[arg-type]
        found = CapacityQps(low=capacity_qps, high=None, boundary=capacity_qps, censored=False)
        study.trial(lowest.trial_id).write_spec(lowest)
        study.trial(lowest.trial_id).write_outcome(
            outcome.model_copy(update={"status": "measured", "feasible": True, "capacity_qps": found})
        )
    table = learned_calibration(settings.calibrate, start, study).text.splitlines()[-2:]
    assert table[0].split() == ["trial", "split", "measured", "this", "rack", "error", "queries/s"]
    assert table[1].split() == ["0", "13P5D", f"{0.98 * true_qps:.2f}", f"{true_qps:.2f}", "+2.0%"]
    (study.trial(spec.trial_id).root / "spec.json").unlink()
    with pytest.raises(ResumableError, match=r"spec\.json: found none"):
        learned_calibration(settings.calibrate, start, study)


def test_without_a_file_its_words_are_told(study: StudyFolder) -> None:
    settings = asked()
    found = learned_calibration(settings.calibrate, starting_calibration(settings, ()), study)
    assert found.words == (
        "cluster.calibration.prefill_scale=1.074",
        "cluster.calibration.last_decode_worker_scale=1.15",
    )
    assert compose_overrides(found.words).settings.cluster.calibration


def test_a_search_that_learned_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    settings = asked()
    with pytest.raises(ConfigurationError, match=r"learned no rack.*search=surrogate"):
        learned_calibration(
            settings.calibrate, starting_calibration(settings, ()), StudyFolder(tmp_path / "other")
        )


def test_what_is_learned_is_not_fitted_as_well() -> None:
    with pytest.raises(ConfigurationError, match=r"calibrate\.learned.*without calibrate\.study"):
        starting_calibration(asked("calibrate.study=other"), ())
