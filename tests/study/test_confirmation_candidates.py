"""Test which configurations of a study are confirmed, and which studies cannot be."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

import pytest
from support.composed import composed
from support.confirmations import AGAIN, FIXED, NAME, chosen, held_kind, predicted_kind
from support.studies import run_composed_study
from support.synthetic_posterior import posterior_of

from tune.analysis.ranking import rank
from tune.errors import ConfigurationError, NegativeResult
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, TrialPosterior, write_posterior
from tune.study.confirmation_candidates import require_confirmable, select_candidates


@pytest.mark.slow
def test_best_configurations_are_chosen_with_new_shuffle_seeds(runs: Path) -> None:
    outcomes = StudyFolder(runs / NAME).outcomes()
    best = [row["trial_id"] for row in rank(outcomes) if row["feasible"]]
    assert best
    picked = chosen(runs, "confirm.configurations=9")
    assert [one.trial.trial_id for one in picked] == best, "no two of them differ in their rate alone"
    for one in picked:
        spec = StudyFolder(runs / NAME).trial(one.trial.trial_id).read_spec()
        assert spec
        assert [again.load.shuffle_seed for again in one.specs] == [100, 200, 300]
        for again in one.specs:
            assert (again.load.mode, again.load.target_qps) == ("capacity", spec.load.target_qps)
            assert again.model_copy(update={"load": spec.load}) == spec, "ignore_submission is bound anew"
        assert one.gpu_hours == pytest.approx(1.5 * one.trial.gpu_hours), "a search costs more than a run"


@pytest.mark.slow
def test_candidates_follow_the_posterior_where_there_is_one(runs: Path) -> None:
    best, second, *_ = (one.trial for one in chosen(runs, "confirm.configurations=2"))
    assert best.output_tps_per_gpu
    assert second.output_tps_per_gpu
    ahead = 1.01 * best.output_tps_per_gpu / second.output_tps_per_gpu
    interval = Interval(low=9.0, median=10.0, high=11.0)
    trial = TrialPosterior(
        trial_id=second.trial_id,
        number=second.number,
        measured_qps=10.0,
        simulated_qps=interval,
        standardised_residual=0.0,
        expected_capacity_qps=10.0 * ahead,
    )
    write_posterior(runs / NAME, posterior_of(trials=(trial,)))
    assert [one.trial for one in chosen(runs, "confirm.configurations=2")] == [second, best]


@pytest.mark.slow
def test_trials_that_differ_in_rate_are_one_candidate(runs: Path) -> None:
    study = StudyFolder(runs / NAME)
    (best, *others) = chosen(runs, "confirm.configurations=9")
    spec = study.trial(best.trial.trial_id).read_spec()
    assert spec
    slower = spec.model_copy(update={"load": spec.load.at(spec.load.target_qps - 0.25)})
    study.trial(slower.trial_id).write_spec(slower)
    again = best.trial.model_copy(update={"trial_id": slower.trial_id, "number": 90})
    study.trial(slower.trial_id).write_outcome(again)
    assert [one.trial.number for one in chosen(runs, "confirm.configurations=9")] == [
        best.trial.number,
        *(one.trial.number for one in others),
    ]


def write_variant(runs: Path, trial: Outcome) -> Outcome:
    """Put a trial on record that differs from `trial` in its chunks alone, and return it."""
    study = StudyFolder(runs / NAME)
    spec = study.trial(trial.trial_id).read_spec()
    assert spec
    variant = spec.model_copy(update={"prefill": spec.prefill.model_copy(update={"max_num_tokens": 6144})})
    study.trial(variant.trial_id).write_spec(variant)
    again = trial.model_copy(update={"trial_id": variant.trial_id, "number": 91})
    study.trial(variant.trial_id).write_outcome(again)
    return again


@pytest.mark.slow
def test_variants_of_one_split_are_one_candidate(runs: Path) -> None:
    before = chosen(runs, "confirm.configurations=9")
    write_variant(runs, before[0].trial)
    after = chosen(runs, "confirm.configurations=9")
    assert [one.trial.number for one in after] == [one.trial.number for one in before]


@pytest.mark.slow
def test_variants_count_where_no_other_kind_is_in_reach(runs: Path) -> None:
    best = chosen(runs, "confirm.configurations=1")[0].trial
    for trial in StudyFolder(runs / NAME).trials():
        if trial.root.name != best.trial_id:
            rmtree(trial.root)
    variant = write_variant(runs, best)
    both = {best.trial_id, variant.trial_id}
    assert {one.trial_id for one in chosen(runs, "confirm.configurations=9")} == both
    out_of_reach = predicted_kind(runs, 80.0)
    assert best.model_error
    assert 0.04 < 1.645 * best.model_error.sd_frac < 0.1
    of_older_record = predicted_kind(runs, 99.0).model_copy(update={"params": None})
    for other in (out_of_reach, of_older_record):
        write_posterior(runs / NAME, posterior_of(kinds=(held_kind(runs, best, 100.0), other)))
        assert {one.trial_id for one in chosen(runs, "confirm.configurations=9")} == both
    within = predicted_kind(runs, 90.0)
    write_posterior(runs / NAME, posterior_of(kinds=(held_kind(runs, best, 100.0), within)))
    first, other_kind = chosen(runs, "confirm.configurations=9")
    assert first.trial_id in both
    assert (other_kind.trial_id, other_kind.params) == (within.trial_id, within.params)
    assert {again.split.label for again in other_kind.specs} == {"13P5D"}
    assert other_kind.gpu_hours == first.gpu_hours, "expected to cost what the best one cost"
    for trial in (best, variant):
        on_a_rack = trial.model_copy(update={"model_error": None})
        StudyFolder(runs / NAME).trial(trial.trial_id).write_outcome(on_a_rack)
    assert {one.trial_id for one in chosen(runs, "confirm.configurations=9")} == both


@pytest.mark.slow
def test_unmeasured_kinds_stand_where_they_are_expected_to_rank(runs: Path) -> None:
    first, second, *_ = (one.trial for one in chosen(runs, "confirm.configurations=9"))
    measured = (held_kind(runs, first, 100.0), held_kind(runs, second, 97.0))
    taken = {kind.kind.split("P")[0] for kind in measured}
    workers = next(n for n in (13, 12, 11) if str(n) not in taken)
    for expected, place in ((104.0, 1), (98.0, 1), (95.0, 2)):
        other = predicted_kind(runs, expected, workers)
        write_posterior(runs / NAME, posterior_of(kinds=(*measured, other)))
        ids = [one.trial_id for one in chosen(runs, "confirm.configurations=3")]
        assert ids.index(other.trial_id) == place
        assert ids[0] == first.trial_id, "the command is checked with a trial of the study"


@pytest.mark.slow
def test_shuffle_seeds_of_the_study_are_not_used_again(runs: Path) -> None:
    study = StudyFolder(runs / NAME)
    spec = study.trials()[0].read_spec()
    assert spec
    used = spec.model_copy(update={"load": spec.load.model_copy(update={"shuffle_seed": 200})})
    study.trial(used.trial_id).write_spec(used)
    assert [again.load.shuffle_seed for again in chosen(runs)[0].specs] == [100, 300, 400]


@pytest.mark.slow
def test_study_without_feasible_trial_is_a_negative_result(tmp_path: Path) -> None:
    run_composed_study(tmp_path, (*FIXED, "study.n_trials=2", "slo.ttft_p99_s=0.001"))
    with pytest.raises(NegativeResult, match="nothing to confirm"):
        chosen(tmp_path)


@pytest.mark.slow
def test_study_without_limits_cannot_be_confirmed(tmp_path: Path) -> None:
    run_composed_study(tmp_path, (*FIXED, "study.n_trials=2", "slo.ttft_p99_s=null", "slo.tpot_p99_s=null"))
    with pytest.raises(ConfigurationError, match="every limit of this study lifted"):
        chosen(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("cluster=local",), "cluster: the study has 'sim', this command says 'local'"),
        (("cluster.calibration.decode_scale=1.5",), "cluster.calibration.decode_scale: the study has"),
        (("load.min_duration_s=30.0",), "load.min_duration_s=30.0: what is confirmed stands in the records"),
        (("+prefill.extra.some_key=1",), "the command does not change it"),
    ],
)
def test_other_backend_or_changed_trial_is_refused(runs: Path, words: tuple[str, ...], says: str) -> None:
    record = StudyFolder(runs / NAME).read_study()
    assert record
    with pytest.raises(ConfigurationError) as refused:
        require_confirmable(record, composed(*words), words)
    assert says in str(refused.value)


def test_overrides_of_the_study_itself_are_accepted(runs: Path) -> None:
    record = StudyFolder(runs / NAME).read_study()
    assert record
    words = (*FIXED, *AGAIN)
    record = record.model_copy(update={"command": FIXED})
    require_confirmable(record, composed(*words), words)


def test_confirmation_cannot_be_confirmed(runs: Path) -> None:
    record = StudyFolder(runs / NAME).read_study()
    assert record
    repeats = record.model_copy(update={"name": f"{NAME}.confirm"})
    with pytest.raises(ConfigurationError, match=f"expected the study that they confirm, study.name={NAME}"):
        select_candidates(StudyFolder(runs / NAME), repeats, composed().confirm)
