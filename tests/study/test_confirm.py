"""The best configurations of a study, measured again on the simulated rack."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from support.composed import composed
from support.studies import (
    CountingSimulator,
    FailingBackend,
    Recording,
    ignore_submission,
    reproducible_fields,
    run_composed_study,
)

from tune.analysis.ranking import rank
from tune.backends.base import AttemptState
from tune.cli.trial_export import recorded_trial
from tune.config import compose_overrides, trial_overrides
from tune.errors import ConfigurationError, NegativeResult, ResumableError
from tune.records.confirmation import Confirmation, repeats_root, write_confirmation
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import (
    Interval,
    KindPosterior,
    PosteriorSummary,
    TrialPosterior,
    write_posterior,
)
from tune.report.recommended import recommended_configuration
from tune.spec.bind import bind_point
from tune.spec.kind import kind_of
from tune.spec.trial import TrialSpec
from tune.study.confirm_winners import (
    remaining_gpu_hours,
    require_complete,
    run_repeats,
    summarise_confirmation,
)
from tune.study.confirmation_candidates import (
    ConfirmationCandidate,
    pin_repeats,
    require_confirmable,
    select_candidates,
    settings_for,
)
from tune.study.loop import open_study

FIXED = (
    "+sweep=pd_split",
    "study.n_trials=8",
    "study.parallel=4",
    "load.dataset.samples=2000",
    "load.min_duration_s=60.0",
    "load.min_queries=2000",
    "load.concatenate_permutation=false",
)
AGAIN = ("confirm.configurations=2", "confirm.repeats=2", "study.parallel=1")
NAME = "pd_split-sim"


class FailsOnce(FailingBackend):
    """Fail the first attempt."""

    def submit(self, spec: TrialSpec, attempt: Path) -> str:
        if self.submitted:
            return CountingSimulator.submit(self, spec, attempt)
        self.lost = super().submit(spec, attempt)
        return self.lost

    def poll(self, handle: str) -> AttemptState:
        return super().poll(handle) if handle == self.lost else CountingSimulator.poll(self, handle)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs folder of a study at fixed rates."""
    runs = tmp_path_factory.mktemp("runs")
    run_composed_study(runs, FIXED)
    return runs


@pytest.fixture
def runs(fixed: Path, tmp_path: Path) -> Path:
    return Path(copytree(fixed, tmp_path / "runs"))


def chosen(runs: Path, *words: str) -> tuple[ConfirmationCandidate, ...]:
    study = StudyFolder(runs / NAME)
    record = study.read_study()
    assert record
    return select_candidates(study, record, composed(*words).confirm)


def confirm(
    runs: Path, *words: str, backend: CountingSimulator | None = None
) -> tuple[list[Outcome], Confirmation]:
    composition = compose_overrides((*AGAIN, *words))
    study = StudyFolder(runs / NAME)
    record = study.read_study()
    assert record
    picked = select_candidates(study, record, composition.settings.confirm)
    settings = settings_for(picked[0], composition.settings)
    requested = pin_repeats(record, picked, settings, composition.overrides)
    overrides = partial(trial_overrides, settings=settings)
    received = Recording()
    with (
        open_study(repeats_root(study.root), requested) as folder,
        backend or CountingSimulator(composition, ignore_submission) as running,
    ):
        candidates = run_repeats(folder, picked, settings, running, overrides=overrides, listener=received)
        found = summarise_confirmation(study, folder, NAME, candidates, settings.confirm)
    require_complete(candidates)
    return received.outcomes, found


def wrapped(kind: type[CountingSimulator] = CountingSimulator) -> CountingSimulator:
    return kind(compose_overrides(FIXED), ignore_submission)


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


def learned(**changes: tuple[TrialPosterior, ...] | tuple[KindPosterior, ...]) -> PosteriorSummary:
    """Return a posterior without parameters."""
    nothing = {"parameters": (), "hypotheses": (), "trials": (), "calibration": {}}
    return PosteriorSummary.model_validate(
        {"schema": 2, "trials_observed": 1, "expected_improvement_frac": 0.0, **nothing, **changes}
    )


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
    write_posterior(runs / NAME, learned(trials=(trial,)))
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
        write_posterior(runs / NAME, learned(kinds=(held_kind(runs, best, 100.0), other)))
        assert {one.trial_id for one in chosen(runs, "confirm.configurations=9")} == both
    within = predicted_kind(runs, 90.0)
    write_posterior(runs / NAME, learned(kinds=(held_kind(runs, best, 100.0), within)))
    first, other_kind = chosen(runs, "confirm.configurations=9")
    assert first.trial_id in both
    assert (other_kind.trial_id, other_kind.params) == (within.trial_id, within.params)
    assert {again.split.label for again in other_kind.specs} == {"13P5D"}
    assert other_kind.gpu_hours == first.gpu_hours, "expected to cost what the best one cost"
    for trial in (best, variant):
        on_a_rack = trial.model_copy(update={"model_error": None})
        StudyFolder(runs / NAME).trial(trial.trial_id).write_outcome(on_a_rack)
    assert {one.trial_id for one in chosen(runs, "confirm.configurations=9")} == both


def around(median: float) -> Interval:
    return Interval(low=0.96 * median, median=median, high=1.04 * median)


def held_kind(runs: Path, trial: Outcome, expected: float) -> KindPosterior:
    """Return what is expected of the kind of a trial."""
    spec = StudyFolder(runs / NAME).trial(trial.trial_id).read_spec()
    assert spec
    return KindPosterior(
        kind=kind_of(spec),
        trial_id=trial.trial_id,
        is_measured=True,
        expected_output_tps_per_gpu=around(expected),
    )


def predicted_kind(runs: Path, expected: float, workers: int = 13) -> KindPosterior:
    """Return what is expected of a candidate that the study did not measure."""
    study = StudyFolder(runs / NAME).read_study()
    assert study
    sweep, base = study.sweep, study.base_spec
    assert sweep
    assert base
    params = {
        "prefill_workers": workers,
        "prefill_max_num_tokens": 16384,
        "decode_max_batch_size": 384,
        "decode_cuda_graphs": "listed",
    }
    space = {name: sweep.space[name] for name in params}
    spec = bind_point(base, sweep.model_copy(update={"space": space}), params)
    return KindPosterior(
        kind=kind_of(spec),
        trial_id=spec.trial_id,
        is_measured=False,
        expected_output_tps_per_gpu=around(expected),
        params=params,
    )


@pytest.mark.slow
def test_unmeasured_kinds_stand_where_they_are_expected_to_rank(runs: Path) -> None:
    first, second, *_ = (one.trial for one in chosen(runs, "confirm.configurations=9"))
    measured = (held_kind(runs, first, 100.0), held_kind(runs, second, 97.0))
    taken = {kind.kind.split("P")[0] for kind in measured}
    workers = next(n for n in (13, 12, 11) if str(n) not in taken)
    for expected, place in ((104.0, 1), (98.0, 1), (95.0, 2)):
        other = predicted_kind(runs, expected, workers)
        write_posterior(runs / NAME, learned(kinds=(*measured, other)))
        ids = [one.trial_id for one in chosen(runs, "confirm.configurations=3")]
        assert ids.index(other.trial_id) == place
        assert ids[0] == first.trial_id, "the command is checked with a trial of the study"


@pytest.mark.slow
def test_a_kind_that_the_study_did_not_measure_is_confirmed_and_recommended(runs: Path) -> None:
    study = StudyFolder(runs / NAME)
    best, *_, worst = (one.trial for one in chosen(runs, "confirm.configurations=9"))
    spec = study.trial(best.trial_id).read_spec()
    assert spec
    for trial in study.trials():
        if trial.root.name != worst.trial_id:
            rmtree(trial.root)
    other = predicted_kind(runs, 100.0, spec.split.prefill_workers)
    write_posterior(runs / NAME, learned(kinds=(other, held_kind(runs, worst, 97.0))))
    outcomes, found = confirm(runs)
    assert len(outcomes) == 4
    found = Confirmation.model_validate_json(found.model_dump_json(by_alias=True))
    first, second = found.configurations
    assert (first.trial_id, first.number, second.trial_id) == (other.trial_id, None, worst.trial_id)
    assert first.predicted
    assert first.predicted.expected_output_tps_per_gpu.median == 100.0
    assert second.loss
    assert second.loss.low_frac > 0
    record = study.read_study()
    assert record
    recommended = recommended_configuration(record, study.outcomes(), [worst.trial_id], found)
    assert recommended
    assert recommended.label == other.kind
    again = composed(*(recommended.overrides or ())).trial_spec
    assert (kind_of(again), again.load.shuffle_seed) == (other.kind, spec.load.shuffle_seed)
    assert (again.load.mode, again.load.target_qps) == ("fixed", first.guaranteed_qps)
    write_confirmation(repeats_root(study.root), found)
    words = ("action=export", "export.to=sbatch", f"study.name={NAME}", f"runs_dir={runs}")
    exported = recorded_trial(compose_overrides(words))
    assert (exported.spec, exported.rate_qps) == (again, first.guaranteed_qps)


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


@pytest.mark.slow
def test_failures_in_a_row_end_the_confirmation(runs: Path) -> None:
    backend = wrapped(FailingBackend)
    with pytest.raises(ResumableError, match="2 consecutive repeats failed"):
        confirm(runs, backend=backend)
    assert backend.submitted == 2


@pytest.mark.slow
def test_confirmation_stays_within_its_budget(runs: Path) -> None:
    backend = wrapped()
    with pytest.raises(ResumableError, match=r"budget of 0\.5 GPU-hours"):
        confirm(runs, "study.max_gpu_hours=0.5", backend=backend)
    assert backend.submitted == 0


@pytest.mark.slow
def test_only_a_lost_repeat_is_measured_again(runs: Path) -> None:
    outcomes, found = confirm(runs)
    assert [outcome.source for outcome in outcomes] == ["confirm"] * 4
    assert [outcome.provenance["params"]["shuffle_seed"] for outcome in outcomes] == [100, 100, 200, 200]
    assert not list(runs.glob("*/*/raw/*/early_stop.json"))
    assert found.degrees_of_freedom == 2
    first, second = found.configurations
    for one in (first, second):
        assert one.guaranteed_qps
        assert one.capacity_qps
        assert 0.5 * one.capacity_qps.mean < one.guaranteed_qps < one.capacity_qps.mean
    assert first.overrides[-2:] == (f"load.target_qps={first.guaranteed_qps!r}", "load.mode=fixed")
    again = composed(*first.overrides).trial_spec
    spec = StudyFolder(runs / NAME).trial(first.trial_id).read_spec()
    assert first.guaranteed_qps
    assert again == spec.model_copy(update={"load": spec.load.at(first.guaranteed_qps)})  # type: ignore[union-attr]

    repeats = StudyFolder(runs / f"{NAME}.confirm")
    (repeats.trial(outcomes[2].trial_id).root / "outcome.json").unlink()
    for attempt in repeats.trial(outcomes[2].trial_id).attempts():
        (attempt / "attempt.json").unlink()
    backend = wrapped()
    resumed, same = confirm(runs, backend=backend)
    assert backend.submitted == 1
    assert json.loads(same.model_dump_json())["configurations"] == [
        json.loads(one.model_dump_json()) for one in found.configurations
    ]
    assert reproducible_fields(resumed) == reproducible_fields(outcomes)


@pytest.mark.slow
def test_interrupted_confirmation_resumes_and_takes_more_repeats(runs: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        confirm(runs, backend=CountingSimulator(compose_overrides(FIXED), interrupt))
    picked = chosen(runs, *AGAIN)
    repeats = StudyFolder(runs / f"{NAME}.confirm")
    number, gpu_hours = remaining_gpu_hours(repeats, picked, rerun=False)
    assert number == 2
    assert gpu_hours == pytest.approx(sum(one.gpu_hours for one in picked))
    backend = wrapped()
    _, two = confirm(runs, backend=backend)
    assert backend.submitted == 2
    backend = wrapped()
    _, three = confirm(runs, "confirm.repeats=3", backend=backend)
    assert backend.submitted == 2
    assert (two.degrees_of_freedom, three.degrees_of_freedom) == (2, 4)
    assert three.gpu_hours > two.gpu_hours


@pytest.mark.slow
def test_failed_repeat_is_reported_and_tried_again(runs: Path) -> None:
    with pytest.raises(ResumableError, match="1 of 2 repeats failed, the last of them: node gb07 is down"):
        confirm(runs, "confirm.configurations=1", backend=wrapped(FailsOnce))
    backend = wrapped()
    _, found = confirm(runs, "confirm.configurations=1", backend=backend)
    assert backend.submitted == 1
    assert found.configurations[0].guaranteed_qps
