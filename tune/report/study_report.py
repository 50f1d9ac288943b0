"""Write the report of a study from what is on record."""

from __future__ import annotations

from pathlib import Path

from tune.analysis.ranking import rank
from tune.errors import ResumableError
from tune.records.confirmation import read_confirmation
from tune.records.folders import StudyFolder
from tune.records.posterior_summary import read_posterior
from tune.report.checked_recommendations import recommendable
from tune.report.page import write_report


def write_study_report(study: StudyFolder, reports_dir: Path, *, running: bool = False) -> Path:
    """Write the page and the ranking of a study into a folder of `reports_dir`, at any time of the study.

    Parameters
    ----------
    study
        The folder of the study; it may have no trial yet.
    reports_dir
        The folder of all reports.
    running
        Whether the study goes on, so that the page says what holds so far and recommends no change.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    ConfigurationError
        If the report cannot be written.
    ResumableError
        If study.json is missing or a record is torn.
    """
    record = study.read_study()
    if record is None:
        raise ResumableError(f"{study.root}: no study.json; expected the folder of a study.")
    confirmation, posterior = read_confirmation(study.root), read_posterior(study.root)
    outcomes = study.outcomes()
    ranked = [] if running else rank(outcomes, posterior)
    top_id = ranked[0]["trial_id"] if ranked else None
    return write_report(
        reports_dir / record.name,
        record,
        recommendable(outcomes, top_id, study, record),
        confirmation=confirmation and confirmation.current(),
        posterior=posterior,
        proposals=study.read_proposals(),
        running=running,
    )
