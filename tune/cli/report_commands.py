"""Run action=report, action=compare and action=parse: read records and logs, print their figures."""

from __future__ import annotations

import json
from pathlib import Path

from tune.cli.output import show
from tune.cli.recorded_commands import show_repeat
from tune.cli.studies import named_study, no_study, study_root
from tune.config import Composition
from tune.errors import ConfigurationError, NegativeResult, ResumableError


def report_action(composition: Composition) -> None:
    """Print the best trial of a study and write its report.

    Raises NegativeResult where no configuration holds its SLO.
    """
    from tune.analysis.range_ends import range_ends
    from tune.analysis.ranking import rank
    from tune.cli.progress import working
    from tune.records.confirmation import read_confirmation
    from tune.records.posterior_summary import read_posterior
    from tune.report.checked_recommendations import recommendable
    from tune.report.other_kind_text import other_kind_lines
    from tune.report.range_end_text import describe_ends, widening_command
    from tune.report.study_end_text import describe_end
    from tune.report.study_report import write_study_report
    from tune.report.terminal import render_confirmation, render_outcome, render_posterior

    folder, record = named_study(composition)
    outcomes, confirmation = folder.outcomes(), read_confirmation(folder.root)
    posterior = read_posterior(folder.root)
    ranked = rank(outcomes, posterior)
    top_id = ranked[0]["trial_id"] if ranked else None
    shown = recommendable(outcomes, top_id, folder, record)
    best = next((o for o in shown if o.trial_id == top_id and o.feasible), None)
    if best:
        show(render_outcome(best, record.slo, record))
        show_repeat(best)
    confirmation = confirmation and confirmation.current()
    for line in other_kind_lines(record, outcomes, confirmation, posterior, folder.read_proposals()):
        show(line)
    if posterior:
        show(render_posterior(record, outcomes, posterior))
    if confirmation:
        show(render_confirmation(record, outcomes, confirmation))
    top = best or next((o for o in outcomes if o.trial_id == top_id), None)
    ends = range_ends(record, top, outcomes) if top else ()
    if ends:
        show(f"widen     {describe_ends(ends)}")
        show(f"          {widening_command(record, ends)}")
    ended = describe_end(record)
    if ended:
        show(f"ended     {ended}")
    reports, running = Path(composition.settings.reports_dir), _runs_now(study_root(composition))
    with working("writing the report"):
        page = write_study_report(folder, reports, running=running)
    show(f"report    {page}")
    if best is None:
        raise NegativeResult(
            "No configuration of this study holds its SLO in all its shuffles; the report says how far each "
            "missed."
        )


def _runs_now(root: Path) -> bool:
    """Return whether a process runs the study; False where the file system has no locks to tell."""
    from tune.study.loop import is_running

    try:
        return is_running(root)
    except ConfigurationError:
        return False


def compare_action(composition: Composition) -> None:
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


def parse_action(composition: Composition) -> None:
    """Print the figures of LoadGen's logs in a folder as JSON."""
    from tune.loadgen.log_reader import log_figures

    if composition.settings.logs is None:
        raise ConfigurationError("action=parse needs logs=DIR, a folder that holds mlperf_log_detail.txt.")
    try:
        figures = log_figures(Path(composition.settings.logs))
    except ResumableError as error:
        raise ConfigurationError(str(error)) from None
    print(json.dumps(figures, indent=1))
