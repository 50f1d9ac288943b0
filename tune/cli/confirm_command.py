"""Run action=confirm: measure the best configurations of a study again on new deployments."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tune.cli.output import show
from tune.cli.runnable import cost_text, make_backend, require_runnable
from tune.cli.studies import ranked_study
from tune.config import ComposedConfig, trial_overrides
from tune.errors import NegativeResult, ResumableError
from tune.spec.metrics import OUTPUT_TPS_PER_GPU
from tune.spec.settings import Settings

if TYPE_CHECKING:
    from tune.records.folders import StudyFolder
    from tune.study.confirmation_candidates import ConfirmationCandidate
    from tune.study.unmeasured_kinds import UnmeasuredKind


def confirm_action(composition: ComposedConfig) -> None:
    """Measure the repeats that are not on record, print the guaranteed rates, and write the report anew.

    Raises NegativeResult where no configuration holds its SLO on every new deployment, or the winner is not
    accurate, ResumableError where a repeat failed.
    """
    from tune.cli.progress import study_progress, working
    from tune.cli.study_progress import numbers_on_record
    from tune.records.confirmation import repeats_root, write_confirmation
    from tune.report.study_report import write_study_report
    from tune.report.terminal import render_confirmation
    from tune.study.accuracy_gate import measure_accuracy, require_references
    from tune.study.confirm_winners import require_complete, run_repeats, summarise_confirmation
    from tune.study.confirmation_candidates import (
        pin_repeats,
        require_confirmable,
        select_candidates,
        settings_for,
    )
    from tune.study.loop import open_study

    study, record = ranked_study(composition)
    require_confirmable(record, composition.settings, composition.words)
    chosen = select_candidates(study, record, composition.settings.confirm)
    settings = settings_for(chosen[0], composition.settings)
    require_runnable(require_references(settings), again=True)
    backend = make_backend(settings, settings.parallel)
    repeats = pin_repeats(record, chosen, settings, composition.words)
    overrides = partial(trial_overrides, settings=settings)
    with open_study(repeats_root(study.root), repeats) as folder:
        _announce(folder, chosen, settings)
        n_repeats = sum(len(candidate.specs) for candidate in chosen) + settings.confirm.accuracy
        on_record = numbers_on_record(folder)
        with backend as running, study_progress(n_repeats, repeats.name, on_record) as progress:
            measured = run_repeats(folder, chosen, settings, running, overrides=overrides, listener=progress)
            confirmation = measure_accuracy(
                folder,
                summarise_confirmation(study, folder, record.name, measured, settings.confirm),
                chosen,
                settings,
                running,
                overrides=overrides,
                listener=progress,
            )
        path = write_confirmation(folder.root, confirmation)
    show(render_confirmation(record, study.outcomes(), confirmation))
    show(f"record    {path}")
    with working("writing the report"):
        page = write_study_report(study, Path(settings.reports_dir))
    show(f"report    {page}")
    require_complete(measured)
    check = confirmation.accuracy
    if check and check.accuracy is None:
        raise ResumableError(f"The winner is not confirmed: {check.objection}. The same command tries again.")
    if check and check.objection:
        raise NegativeResult(f"The winner is not confirmed: {check.objection}.")
    if confirmation.configurations[0].capacity_qps is None:
        raise NegativeResult("No configuration holds its SLO on every new deployment; the report says why.")


def _announce(folder: StudyFolder, chosen: tuple[ConfirmationCandidate, ...], settings: Settings) -> None:
    """Print the number and the cost of the repeats before the first submission."""
    from tune.study.confirm_winners import remaining_gpu_hours

    unmeasured = [candidate.unmeasured for candidate in chosen if candidate.unmeasured]
    if len(chosen) < settings.confirm.configurations:
        print(
            f"confirm.configurations: {settings.confirm.configurations} asked, this study has "
            f"{len(chosen)} of different split or parallelism that hold their SLO"
            f"{', or may be as good as the best' if unmeasured else ''}",
            file=sys.stderr,
        )
    if unmeasured:
        print(f"not measured before: {'; '.join(map(_expectation, unmeasured))}", file=sys.stderr)
    ahead, gpu_hours = remaining_gpu_hours(folder, chosen, rerun=settings.rerun)
    repeats = sum(len(candidate.specs) for candidate in chosen)
    cost = cost_text(settings, gpu_hours)
    print(f"{ahead} of {repeats} repeats remain, {cost}, as they cost the study", file=sys.stderr)


def _expectation(unmeasured: UnmeasuredKind) -> str:
    """Return a kind that the study did not measure, and what is expected of it."""
    expected = unmeasured.expected_output_tps_per_gpu
    return (
        f"{unmeasured.posterior.kind}, expected to give {expected.median:.1f} {OUTPUT_TPS_PER_GPU.unit} "
        f"(90 % interval: {expected.low:.1f} to {expected.high:.1f})"
    )
