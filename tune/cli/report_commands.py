"""Run action=report, action=compare and action=parse: read records and logs, print their figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tune.cli.output import show
from tune.cli.recorded_commands import show_repeat
from tune.cli.studies import no_study, ranked_study, study_root
from tune.config import ComposedConfig
from tune.errors import ConfigurationError, NegativeResult, ResumableError

if TYPE_CHECKING:
    from tune.report.study_report import StudyResults


def report_action(composition: ComposedConfig) -> None:
    """Print the best trial of a study and write its report.

    Raises NegativeResult where no configuration holds its SLO, ConfigurationError where trials are unlike.
    """
    from tune.cli.progress import working
    from tune.report.study_report import read_results, write_results, write_study_report

    folder, _ = ranked_study(composition)
    with working("reading the trials"):
        results = read_results(folder)
    _show_results(results)
    if unjudged := folder.unjudged():
        show(
            f"left out  {', '.join(unjudged)}: attempts, but no outcome.json. The study's command judges "
            "them from their records."
        )
    reports = Path(composition.settings.reports_dir)
    with working("writing the report"):
        if _runs_now(study_root(composition)):
            page = write_study_report(folder, reports, running=True)
        else:
            page = write_results(results, reports)
    show(f"report    {page}")
    if results.top is None or not results.top.feasible:
        raise NegativeResult(
            "No configuration of this study holds its SLO in all its shuffles; the report says how far each "
            "missed."
        )


def _show_results(results: StudyResults) -> None:
    """Print the best trial, what else is known, and why the study ended."""
    from tune.report.other_kind_text import other_kind_lines
    from tune.report.range_end_text import describe_ends, describe_final_ends, widening_command
    from tune.report.study_end_text import describe_end
    from tune.report.terminal import render_confirmation, render_outcome, render_posterior

    record, outcomes, top = results.record, results.outcomes, results.top
    posterior, confirmation = results.posterior, results.confirmation
    if top and top.feasible:
        show(render_outcome(top, record.slo, record))
        show_repeat(top)
    for line in other_kind_lines(record, outcomes, confirmation, posterior, results.proposals):
        show(line)
    if posterior:
        show(render_posterior(record, outcomes, posterior, is_confirmed=bool(confirmation)))
    if confirmation:
        show(render_confirmation(record, outcomes, confirmation))
    if described := describe_ends(results.ends):
        show(f"widen     {described}")
        show(f"          {widening_command(record, results.ends)}")
    if final := describe_final_ends(results.ends):
        show(f"range     {final}")
    ended = describe_end(record)
    if ended:
        show(f"ended     {ended}")


def _runs_now(root: Path) -> bool:
    """Return whether a process runs the study; False where the file system has no locks to tell."""
    from tune.study.loop import is_running

    try:
        return is_running(root)
    except ConfigurationError:
        return False


def compare_action(composition: ComposedConfig) -> None:
    """Print the differences between two studies or two trials."""
    from tune.report.compare import render_comparison

    a, b = composition.settings.compare.a, composition.settings.compare.b
    if a is None or b is None:
        missing = "compare.a" if a is None else "compare.b"
        raise ConfigurationError(
            f"{no_study(composition, missing)}\nBoth compare.a and compare.b are needed: two studies, or two "
            "trials as STUDY/TRIAL_ID."
        )
    show(render_comparison(Path(composition.settings.runs_dir), a, b))


def parse_action(composition: ComposedConfig) -> None:
    """Print the figures of LoadGen's logs in a folder as JSON."""
    from tune.loadgen.log_reader import log_figures

    if composition.settings.logs is None:
        raise ConfigurationError("action=parse needs logs=DIR, a folder that holds mlperf_log_detail.txt.")
    try:
        figures = log_figures(Path(composition.settings.logs))
    except ResumableError as error:
        raise ConfigurationError(str(error)) from None
    print(json.dumps(figures, indent=1))
