"""Run `action=export export.to=mlperf`: write the folder that a submitter sends to the benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tune.cli.output import show
from tune.cli.recorded_commands import named_trial
from tune.cli.studies import named_study, ranked_study
from tune.config import ComposedConfig
from tune.errors import ConfigurationError

if TYPE_CHECKING:
    from tune.records.folders import StudyFolder, TrialFolder


def export_submission(composition: ComposedConfig) -> None:
    """Write the submission of one trial, and print what it still lacks.

    The trial is the one that `trial` names, else the one that measured the accuracy of the confirmed winner,
    else the best with an accuracy run. Raises ConfigurationError where there is none.
    """
    from tune.study.mlperf_submission import read_submitter_facts, write_submission

    settings = composition.settings
    named = settings.trial is not None
    study, record = (named_study if named else ranked_study)(composition)
    facts = read_submitter_facts(Path(settings.export.submitter) if settings.export.submitter else None)
    trial = study.trial(named_trial(composition, study)) if named else _measured_trial(study)
    default = Path(settings.reports_dir) / composition.study_name / "mlperf"
    folder = Path(settings.export.file) if settings.export.file else default
    submission = write_submission(folder, trial, facts)
    show(f"exported  trial {trial.root.name} of {record.name}: {submission.folder}")
    for lack in submission.lacks:
        show(f"lacks     {lack}")


def _measured_trial(study: StudyFolder) -> TrialFolder:
    """Return the trial of a study, or of its confirmation, whose accuracy is submitted."""
    from tune.analysis.ranking import rank
    from tune.records.confirmation import read_confirmation, repeats_root
    from tune.records.folders import StudyFolder

    confirmation = read_confirmation(study.root)
    if confirmation and confirmation.accuracy:
        return StudyFolder(repeats_root(study.root)).trial(confirmation.accuracy.trial_id)
    measured = {outcome.trial_id: outcome for outcome in study.outcomes() if outcome.accuracy}
    best = next((row["trial_id"] for row in rank(list(measured.values()))), None)
    if best is None:
        raise ConfigurationError(
            f"{study.root}: found no trial with an accuracy run; expected one. action=confirm "
            "confirm.accuracy=true measures the winner's, load.accuracy=true that of every trial."
        )
    return study.trial(best)
