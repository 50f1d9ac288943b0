"""Run action=run: one trial, or a study of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tune.cli.output import show
from tune.cli.report_commands import report_action
from tune.cli.runnable import (
    check_configuration,
    check_whole_sweep,
    cost_text,
    make_backend,
    print_findings,
    require_runnable,
)
from tune.cli.studies import recorded_study, study_root
from tune.config import ComposedConfig, trial_overrides
from tune.errors import ConfigurationError, NegativeResult, ResumableError
from tune.spec.findings import Finding, only_errors, render_findings


def run_action(composition: ComposedConfig) -> None:
    """Run the study of the composed sweep, or one trial without a sweep."""
    if composition.settings.sweep:
        _run_study(composition)
    else:
        _run_trial(composition)


def _run_trial(composition: ComposedConfig) -> None:
    """Measure the configuration as composed and print the outcome."""
    from tune.cli.progress import study_progress
    from tune.report.checked_recommendations import recommendable
    from tune.report.terminal import render_outcome
    from tune.study.identity import study_record
    from tune.study.loop import open_study, run_trial

    settings = composition.settings
    if settings.study.n_trials is not None:
        raise ConfigurationError(
            "study.n_trials: without a sweep there is one trial; expected +sweep=NAME beside it."
        )
    root = study_root(composition)
    require_runnable(settings, again=root.exists())
    backend = make_backend(settings, at_once=1)
    study = study_record(settings, composition.study_name, ())
    overrides = partial(trial_overrides, settings=settings)
    with open_study(root, study) as folder, backend as running, study_progress(1, study.name) as progress:
        outcome, fresh = run_trial(folder, settings, running, overrides, progress)
        (outcome,) = recommendable([outcome], outcome.trial_id, folder, study)
    show(render_outcome(outcome, settings.slo, study))
    show(f"record    {root / outcome.trial_id}{'' if fresh else '  (on record; rerun=true measures again)'}")
    if outcome.status == "infeasible":
        raise NegativeResult(f"The configuration cannot run: {outcome.reason}")
    if outcome.status == "failed":
        raise ResumableError(f"The trial failed: {outcome.reason}\nThe same command tries it again.")


def _run_study(composition: ComposedConfig) -> None:
    """Run the study to its end and report on it; report also where it stops before its end."""
    from tune.cli.output import print_progress
    from tune.cli.progress import study_progress
    from tune.cli.study_progress import numbers_on_record
    from tune.records.folders import StudyFolder
    from tune.report.live_report import LiveReport
    from tune.report.study_report import write_study_report
    from tune.study.budget import forecast_gpu_hours
    from tune.study.corrected_sweep import describe_correction
    from tune.study.identity import study_record
    from tune.study.loop import open_study, require_search, run_study
    from tune.study.recorded_end import may_end_early

    settings = composition.settings
    before = StudyFolder(study_root(composition)).read_study()
    if settings.sweep and (before is None or before.space != settings.sweep.space):
        _require_possible_sweep(check_whole_sweep(settings))
        require_search(settings)
    print_findings(check_configuration(settings), again=study_root(composition).exists())
    study = study_record(settings, composition.study_name, composition.words)
    backend = make_backend(settings, settings.parallel)
    keeps_parallel = settings.study.parallel is None
    opened = open_study(study_root(composition), study, keeps_parallel=keeps_parallel)
    with opened as folder, backend as running:
        correction = describe_correction(before, folder)
        if correction:
            print(correction, file=sys.stderr)
        n_trials = settings.study.n_trials or recorded_study(study_root(composition))[1].n_trials
        on_record = numbers_on_record(folder)
        ahead = n_trials - len(on_record)
        if ahead > 0:
            cost = cost_text(settings, forecast_gpu_hours(settings, ahead))
            limit = f", {study.max_gpu_hours:,.0f} at most" if study.max_gpu_hours else ""
            print(f"{ahead} of {n_trials} trials remain, {cost}{limit}", file=sys.stderr)
        overrides = partial(trial_overrides, settings=settings)
        page = LiveReport(
            partial(write_study_report, folder, Path(settings.reports_dir), running=True), print_progress
        )
        try:
            early = may_end_early(study, n_trials)
            with study_progress(n_trials, study.name, on_record, may_end_early=early) as progress:
                run_study(folder, settings, running, overrides, progress, batch_recorded=page.update)
        except ResumableError:
            if any(outcome.status == "measured" for outcome in folder.outcomes()):
                with suppress(NegativeResult):  # the message is why the study stopped
                    report_action(composition)
            raise
    report_action(composition)


def _require_possible_sweep(findings: Sequence[Finding]) -> None:
    """Print what is wrong with points of the sweep. Raises ConfigurationError where none can run."""
    if only_errors(findings):
        raise ConfigurationError(f"{render_findings(findings)}\nThe sweep has no point; nothing was run.")
    if findings:
        print(render_findings(findings), file=sys.stderr)
