"""Provide a small study at fixed rates, and confirm its best configurations."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from support.composed import composed
from support.studies import CountingSimulator, Recording, ignore_submission
from tune.config import compose_overrides, trial_overrides
from tune.records.confirmation import Confirmation, repeats_root
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, KindPosterior
from tune.spec.bind import bind_point
from tune.spec.kind import kind_of
from tune.study.confirm_winners import require_complete, run_repeats, summarise_confirmation
from tune.study.confirmation_candidates import (
    ConfirmationCandidate,
    pin_repeats,
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
AGAIN = ("confirm.configurations=2", "confirm.repeats=2", "study.parallel=1", "study.retries=0")
NAME = "pd_split-sim"


def chosen(runs: Path, *words: str) -> tuple[ConfirmationCandidate, ...]:
    """Return the candidates that a command with the settings `words` confirms."""
    study = StudyFolder(runs / NAME)
    record = study.read_study()
    assert record
    return select_candidates(study, record, composed(*words).confirm)


def confirm(
    runs: Path, *words: str, backend: CountingSimulator | None = None
) -> tuple[list[Outcome], Confirmation]:
    """Confirm the study in `runs`; return the outcomes that were recorded now, and the confirmation."""
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
    """Return a simulated backend that counts what is submitted."""
    return kind(compose_overrides(FIXED), ignore_submission)


def around(median: float) -> Interval:
    """Return an interval of 4 % to both sides."""
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
