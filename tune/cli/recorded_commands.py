"""Run the actions on a study on disk: action=status, action=logs and action=cancel."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tune.backends.registry import BACKENDS
from tune.cli.output import show
from tune.cli.studies import named_study, questions_of
from tune.config import ComposedConfig
from tune.errors import ConfigurationError

if TYPE_CHECKING:
    from tune.backends.base import JobControl
    from tune.records.folders import StudyFolder
    from tune.records.outcome import Outcome
    from tune.records.study_record import StudyRecord


def show_repeat(outcome: Outcome) -> None:
    """Print the command that measures a trial again, and what to expect of it."""
    from tune.report.verdict_robustness import expected_of_repeat

    show(f"again     {shlex.join(['python', '-m', 'tune', *outcome.provenance['overrides']])}")
    if expected := expected_of_repeat(outcome):
        show(f"          {expected}")


def status_action(composition: ComposedConfig) -> None:
    """Print the progress and the running jobs of a study, or all about one trial."""
    from tune.records.posterior_summary import read_posterior
    from tune.report.terminal import render_status

    folder, record = named_study(composition)
    if composition.settings.trial is None:
        posterior = read_posterior(folder.root)
        alike = len(questions_of(folder, record)) < 2
        show(render_status(record, folder.read_proposals(), folder.outcomes(), posterior, alike=alike))
        _print_jobs(folder, record, None)
        return
    _show_trial(named_trial(composition, folder), folder, record)


def _show_trial(trial_id: str, folder: StudyFolder, record: StudyRecord) -> None:
    """Print all about one trial."""
    from tune.report.checked_recommendations import recommendable
    from tune.report.failure_text import failure_lines
    from tune.report.run_check_text import check_lines
    from tune.report.terminal import render_outcome

    outcome, spec = folder.trial(trial_id).read_outcome(), folder.trial(trial_id).read_spec()
    if outcome and spec:
        (outcome,) = recommendable([outcome], trial_id, folder, record)
        show(render_outcome(outcome, spec.slo, record))
        for line in failure_lines(outcome):
            show(line)
        show_repeat(outcome)
        for line in check_lines(outcome):
            show(line)
    else:
        show(f"trial     {trial_id}: not recorded yet")
    _print_jobs(folder, record, trial_id)


def logs_action(composition: ComposedConfig) -> None:
    """Print the logs of a trial's last attempt, until it ends.

    Raises ConfigurationError where the trial has no logs.
    """
    from tune.core.log_tail import follow_logs

    folder, record = named_study(composition)
    trial_id = named_trial(composition, folder)
    attempt = folder.trial(trial_id).last_attempt()
    no_logs = BACKENDS[record.backend].declaration.no_logs
    if attempt is None or no_logs:
        found = no_logs if attempt else "no attempt was made"
        expected = " or ".join(name for name, entry in BACKENDS.items() if not entry.declaration.no_logs)
        raise ConfigurationError(
            f"trial={trial_id}: {found}; expected a trial with logs, of cluster={expected}."
        )
    jobs = _job_control(record)
    for line in follow_logs(_log_files(attempt, jobs), _has_ended(attempt, folder, jobs)):
        print(line, flush=True)


def cancel_action(composition: ComposedConfig) -> None:
    """Cancel the jobs of a study, or those that work for one trial of it.

    Raises ConfigurationError where the study has no jobs that run without its process.
    """
    from tune.study.loop import is_running

    folder, record = named_study(composition)
    jobs = _job_control(record)
    if jobs is None:
        expected = " or ".join(name for name, entry in BACKENDS.items() if entry.jobs)
        raise ConfigurationError(
            f"action=cancel: study {record.name} runs on cluster={record.backend}, inside the process that "
            f"runs it: press Ctrl-C there. Expected a study of cluster={expected}."
        )
    trial_id = None if composition.settings.trial is None else named_trial(composition, folder)
    cancelled = jobs.cancel(folder.root, trial_id)
    for job in cancelled:
        print(f"cancelled {job.text}")
    if not cancelled:
        print(f"No job of {f'trial {trial_id}' if trial_id else f'study {record.name}'} waits or runs.")
    elif is_running(folder.root):
        print("A process runs this study: it may submit further trials. Press Ctrl-C there to end it.")


def _job_control(record: StudyRecord) -> JobControl | None:
    """Return the control of the study's jobs; None where attempts end with the study's process."""
    jobs = BACKENDS[record.backend].jobs
    return jobs() if jobs else None


def named_trial(composition: ComposedConfig, folder: StudyFolder) -> str:
    """Return the trial that `trial` names by id or number. Raises ConfigurationError where there is none."""
    trial = composition.settings.trial
    by_number = {proposal.number: proposal.trial_id for proposal in folder.read_proposals()}
    trial_id = by_number.get(trial, "-") if isinstance(trial, int) else trial
    inside = trial_id is not None and Path(trial_id).name == trial_id
    if trial_id is None or not inside or folder.trial(trial_id).read_spec() is None:
        raise ConfigurationError(
            f"trial={trial}: no such trial in {folder.root}; expected the number or the trial_id of one of "
            f"its {len(folder.trials())} trials, as the report and ranking.json list them."
        )
    return trial_id


def _print_jobs(folder: StudyFolder, record: StudyRecord, trial_id: str | None) -> None:
    """Print the jobs of a study that owe an attempt, or those that owe one of `trial_id`."""
    from tune.records.folders import trial_of

    jobs = _job_control(record)
    for job in jobs.pending(folder.root) if jobs else ():
        if trial_id is None or trial_id in {
            trial_of(attempt).root.name for attempt in job.unfinished_attempts
        }:
            show(f"runs      {job.text}")


def _log_files(attempt: Path, jobs: JobControl | None) -> Callable[[], list[Path]]:
    """Return a function that lists the logs of an attempt, that of its job first."""

    def files() -> list[Path]:
        """List the logs that exist by now."""
        job_log = jobs.job_log(attempt) if jobs else None
        return [*([job_log] if job_log else []), *sorted(attempt.glob("logs/*"))]

    return files


def _has_ended(attempt: Path, folder: StudyFolder, jobs: JobControl | None) -> Callable[[], bool]:
    """Return a function that says whether an attempt left its record, or whatever would write one is gone."""
    from tune.cli.output import print_progress
    from tune.records.folders import has_ended
    from tune.study.loop import is_running

    if jobs is None:
        return lambda: has_ended(attempt) or not is_running(folder.root)
    return jobs.watch(folder.root, attempt, print_progress)
