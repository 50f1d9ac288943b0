"""Test studies over both kinds of deployments on the simulated rack: search, records, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import composed
from support.studies import run_composed_study

from tune.analysis.ranking import rank
from tune.capacity.simulator_forecast import SimulatorForecast
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.study_end import StudyEnd
from tune.report.kind_label import kind_label
from tune.report.study_end_text import describe_end
from tune.spec.kind import kind_of
from tune.spec.split import ROLES
from tune.study.candidates import candidates
from tune.study.identity import study_record

SHORT = (
    *("load.min_queries=300", "load.min_duration_s=20.0", "load.concatenate_permutation=false"),
    *("slo.ttft_p99_s=20", "study.parallel=1"),
)
SWEEP = ("+sweep=disaggregation", "search=tpe", "study.n_trials=10", "study.seed=3", *SHORT)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, list[Outcome]]:
    folder = tmp_path_factory.mktemp("both")
    outcomes = run_composed_study(folder, SWEEP)
    return StudyFolder(folder / "disaggregation-sim"), outcomes


@pytest.mark.slow
def test_one_search_measures_both_kinds(study: tuple[StudyFolder, list[Outcome]]) -> None:
    folder, outcomes = study
    record = folder.read_study()
    labels = [kind_label(outcome, record) for outcome in outcomes]
    assert labels[0] == "14P4D TP4/TP4", "the baseline"
    assert "18A TP4" in labels
    assert len({label for label in labels if label and label.endswith("TP4/TP4")}) > 1
    assert all(outcome.status == "measured" for outcome in outcomes)
    assert len(rank(outcomes)) == len({outcome.trial_id for outcome in outcomes})
    assert all(outcome.model_error for outcome in outcomes)


@pytest.mark.slow
def test_the_record_of_a_trial_composes_it_again(study: tuple[StudyFolder, list[Outcome]]) -> None:
    folder, outcomes = study
    record = folder.read_study()
    for outcome in outcomes:
        spec = folder.trial(outcome.trial_id).read_spec()
        assert kind_of(spec) == kind_label(outcome, record)
        if outcome.provenance["params"]:
            assert record.compose_trial(outcome.trial_id, outcome.provenance["params"]) == spec
        again = compose_overrides(outcome.provenance["overrides"]).settings.trial_spec
        assert again.trial_id == outcome.trial_id


@pytest.mark.slow
def test_a_resumed_study_runs_nothing_again(study: tuple[StudyFolder, list[Outcome]], tmp_path: Path) -> None:
    folder, outcomes = study
    again = run_composed_study(folder.root.parent, SWEEP)
    assert [outcome.trial_id for outcome in again] == [outcome.trial_id for outcome in outcomes]


def test_a_deployment_with_one_pool_has_no_capacities_of_pools() -> None:
    settings = composed("split=aggregated")
    assert settings.cluster.calibration is not None
    forecast = SimulatorForecast(settings.trial_spec, settings.cluster.calibration)
    assert [forecast.pool_capacity_qps(role) for role in ROLES] == [None, None]


def test_a_study_with_aggregated_points_does_not_advise_the_surrogate() -> None:
    texts = []
    for sweep in ("disaggregation", "pd_split"):
        words = (f"+sweep={sweep}", "load.mode=capacity", "search=tpe", "study.n_trials=4")
        study = study_record(composed(*words), sweep, words)
        ended = StudyEnd(kind="trials", proposed=4, configurations=4, infeasible=0)
        texts.append(describe_end(study.model_copy(update={"ended": ended})) or "")
    assert all("half of such searches need 32 or more" in text for text in texts)
    assert ["surrogate" in text for text in texts] == [False, True]


def test_the_surrogate_refuses_aggregated_points() -> None:
    settings = composed("+sweep=disaggregation", "load.mode=capacity")
    assert settings.search.name == "tpe", "chosen for this sweep"
    assert settings.sweep is not None
    with pytest.raises(ConfigurationError, match=r"found split\.aggregated_workers above 0 among the points"):
        candidates(settings.trial_spec, settings.sweep, 0)
    only_two = settings.sweep.without("split.aggregated_workers")
    assert not only_two.has_aggregated(0)
    assert only_two.has_aggregated(18)
