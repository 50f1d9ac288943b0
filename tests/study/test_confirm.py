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
from tune.config import compose_overrides, trial_overrides
from tune.errors import ConfigurationError, NegativeResult, ResumableError
from tune.records.confirmation import Confirmation, repeats_root
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, PosteriorSummary, TrialPosterior, write_posterior
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
    learned = PosteriorSummary(
        schema=2,
        trials_observed=1,
        parameters=(),
        hypotheses=(),
        trials=(trial,),
        expected_improvement_frac=0.0,
        calibration={},
    )
    write_posterior(runs / NAME, learned)
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
def test_variants_count_where_the_study_has_one_split(runs: Path) -> None:
    best = chosen(runs, "confirm.configurations=1")[0].trial
    for trial in StudyFolder(runs / NAME).trials():
        if trial.root.name != best.trial_id:
            rmtree(trial.root)
    variant = write_variant(runs, best)
    assert {one.trial.trial_id for one in chosen(runs, "confirm.configurations=9")} == {
        best.trial_id,
        variant.trial_id,
    }


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
