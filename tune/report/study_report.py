"""Write the report of a study from what is on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune.analysis.range_ends import RangeEnd
from tune.analysis.ranking import rank
from tune.errors import ResumableError
from tune.records.confirmation import Confirmation, read_confirmation
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary, read_posterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report.checked_range_ends import checked_range_ends
from tune.report.checked_recommendations import recommendable
from tune.report.page import write_report
from tune.report.recommended import recommended_configuration
from tune.report.trial_status import distinct_trials
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class StudyResults:
    """Hold what is on record of a study, each record read once.

    Attributes
    ----------
    record, proposals, confirmation, posterior
        The records by their names.
    outcomes
        The trials, with the recommendations that nothing speaks against.
    top
        The trial that the ranking puts first; None where none is measured, or the study still runs.
    ends
        The ends of ranges at which the values of the recommended configuration lie, or those of `top` where
        none is recommended; none while the study runs.
    """

    record: StudyRecord
    proposals: Sequence[Proposal]
    confirmation: Confirmation | None
    posterior: PosteriorSummary | None
    outcomes: Sequence[Outcome]
    top: Outcome | None
    ends: Sequence[RangeEnd]


def read_results(study: StudyFolder, *, running: bool = False) -> StudyResults:
    """Read the records of a study. Where it is `running` none of its trials recommends a change.

    Raises ResumableError if study.json is missing or a record is torn.
    """
    record = study.read_study()
    if record is None:
        raise ResumableError(f"{study.root}: no study.json; expected the folder of a study.")
    confirmation, posterior = read_confirmation(study.root), read_posterior(study.root)
    outcomes = study.outcomes()
    record = _of_measured_trials(record, outcomes, study)
    ranked = [] if running else rank(outcomes, posterior)
    top_id = ranked[0]["trial_id"] if ranked else None
    shown = recommendable(outcomes, top_id, study, record)
    confirmation = confirmation and confirmation.current()
    top = next((outcome for outcome in shown if outcome.trial_id == top_id), None)
    ranked_ids = [row["trial_id"] for row in ranked]
    recommended = recommended_configuration(record, distinct_trials(shown), ranked_ids, confirmation)
    answer = recommended.trial if recommended else top
    return StudyResults(
        record,
        study.read_proposals(),
        confirmation,
        posterior,
        shown,
        top,
        checked_range_ends(record, answer, shown) if answer and not running else (),
    )


def _of_measured_trials(record: StudyRecord, outcomes: Sequence[Outcome], study: StudyFolder) -> StudyRecord:
    """Return the record of single trials with rack, model and SLO of those that were measured.

    On record are those that every trial shares, also one that failed. Nothing changes where they differ.
    """
    measured = [outcome for outcome in outcomes if outcome.status == "measured"]
    if record.space or not measured:
        return record
    first, *others = (_described(study.spec_of(outcome)) for outcome in measured)
    return record.model_copy(update=first) if all(other == first for other in others) else record


def _described(spec: TrialSpec) -> dict[str, Any]:
    """Return what the record of a study says of its trials, by its fields."""
    return {
        "stack": spec.stack.name,
        "engine": spec.stack.engine,
        "model": spec.model.name,
        "hardware": spec.hardware.name,
        "nodes": spec.hardware.nodes,
        "gpus_per_node": spec.hardware.gpus_per_node,
        "gpus": spec.hardware.gpus,
        "slo": spec.slo,
    }


def write_results(results: StudyResults, reports_dir: Path, *, running: bool = False) -> Path:
    """Write the page and the ranking of a study into a folder of `reports_dir`.

    Parameters
    ----------
    results
        The study.
    reports_dir
        The folder of all reports.
    running
        Whether the study goes on, so that the page says what holds so far.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    ConfigurationError
        If the report cannot be written.
    """
    return write_report(
        reports_dir / results.record.name,
        results.record,
        results.outcomes,
        confirmation=results.confirmation,
        posterior=results.posterior,
        proposals=results.proposals,
        ends=results.ends,
        running=running,
    )


def write_study_report(study: StudyFolder, reports_dir: Path, *, running: bool = False) -> Path:
    """Read the records of a study and write its report, at any time of the study.

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
    return write_results(read_results(study, running=running), reports_dir, running=running)
