"""Run `action=export`: write a study, or one trial of it, in the format of another program."""

from __future__ import annotations

from pathlib import Path

from tune.cli.output import show
from tune.cli.studies import named_study
from tune.config import ComposedConfig
from tune.errors import ConfigurationError

_FILE = "optuna.log"


def export(composition: ComposedConfig) -> None:
    """Write the study or the trial as `export.to` says, and print the file.

    Raises ConfigurationError without a format, without a study, for a trial that does not exist, and for a
    file that is not an earlier export.
    """
    from tune.cli.trial_export import export_report, export_trial

    match composition.settings.export.to:
        case None:
            raise ConfigurationError(
                "action=export needs export.to=FORMAT: optuna (the study), or sbatch, srt-slurm, dgd, "
                "benchmark-report, mlperf (the best trial, or trial=ID)."
            )
        case "optuna":
            _export_study(composition)
        case "mlperf":
            from tune.cli.mlperf_export import export_submission

            export_submission(composition)
        case "benchmark-report":
            export_report(composition)
        case "sbatch" | "srt-slurm" | "dgd" as target:
            export_trial(composition, target)


def _export_study(composition: ComposedConfig) -> None:
    from tune.study.optuna_export import SQLITE_SUFFIXES, export_to_optuna

    settings = composition.settings
    folder, record = named_study(composition)
    default = Path(settings.reports_dir) / composition.study_name / _FILE
    file = Path(settings.export.file) if settings.export.file else default
    count = export_to_optuna(folder, record, file)
    storage = f"sqlite:///{file}" if file.suffix in SQLITE_SUFFIXES else file
    show(f"exported  {count} trials of {record.name}: {file}")
    show(f"open      optuna-dashboard {storage}")
