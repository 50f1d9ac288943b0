"""Run action=calibrate: fit the simulated rack to measured runs, as text and as a settings file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from tune.calibrate.comparison import compare_run
from tune.calibrate.fit import FittedParameter, Progress, fit, fitted_values
from tune.calibrate.measured_runs import MeasuredRun, run_of_logs, runs_of_study
from tune.calibrate.parameters import find_parameters
from tune.calibrate.settings_file import check_target, render_learned, render_settings
from tune.calibrate.tables import describe_seeds, render_parameters, render_runs
from tune.calibrate.validate import validate_learned
from tune.core.files import first_validation_error, make_folder, write_text
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.posterior_summary import read_posterior
from tune.spec.backend_kinds import BACKEND_DECLARATIONS
from tune.spec.calibrate_settings import CalibrateSettings, ListedRun
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

_LISTED_RUNS = TypeAdapter(Annotated[tuple[ListedRun, ...], Field(min_length=1)])


@dataclass(frozen=True)
class CalibrationResult:
    """Hold the tables of a calibration, and the arguments of a command that uses it."""

    text: str
    arguments: tuple[str, ...]


def starting_calibration(settings: Settings, shipped: Sequence[str]) -> Calibration:
    """Return the calibration where a fit starts. Raises ConfigurationError for settings that allow none.

    `shipped` are the options of the group `cluster` that tune ships.
    """
    request = settings.calibrate
    capabilities = BACKEND_DECLARATIONS[settings.cluster.kind].capabilities
    if not capabilities.needs_calibration or settings.cluster.calibration is None:
        raise ConfigurationError(
            f"action=calibrate fits the simulated rack; found cluster={settings.cluster.kind}, expected "
            "cluster=sim. Leave it out: trials that another backend measured are read all the same."
        )
    if request.trials is not None and request.study is None:
        raise ConfigurationError(
            "calibrate.trials names trials of a study; expected calibrate.study=NAME beside it."
        )
    sources = (request.study, request.logs, request.runs)
    if request.learned is not None and any(sources):
        raise ConfigurationError(
            "calibrate.learned takes what a search has learned as it is; expected it without "
            "calibrate.study, calibrate.logs and calibrate.runs, which are fitted."
        )
    if request.learned is None and not any(sources):
        raise ConfigurationError(
            "action=calibrate needs measured runs: calibrate.study=NAME, calibrate.logs=DIR with the "
            "settings of that run, or calibrate.runs=FILE.yaml with a list of {logs: DIR, overrides: [...]}."
        )
    if request.to is not None:
        check_target(Path(request.to), shipped)
    return settings.cluster.calibration


def read_measured_runs(
    settings: CalibrateSettings, study: StudyFolder | None, compose_spec: Callable[[Sequence[str]], TrialSpec]
) -> tuple[MeasuredRun, ...]:
    """Return every run that `settings` name, those of `study` first.

    Parameters
    ----------
    settings
        The sources of runs: trials of a study, a folder of LoadGen's logs, a YAML list of such folders.
    study
        The study that `settings` name, None without one.
    compose_spec
        Returns the trial that the overrides of a listed run describe.

    Returns
    -------
    tuple[MeasuredRun, ...]
        Trials of the study, then the logs, then the listed runs.

    Raises
    ------
    ConfigurationError
        A run is missing, not measured, or not the run of its configuration.
    ResumableError
        A record or a log is damaged or missing.
    """
    runs = list(runs_of_study(study, settings.trials)) if study else []
    if settings.logs is not None:
        runs.append(run_of_logs(Path(settings.logs), compose_spec(())))
    if settings.runs is not None:
        path = Path(settings.runs)
        runs += [
            run_of_logs(path.parent / entry.logs, compose_spec(entry.overrides))
            for entry in read_listed(path)
        ]
    return tuple(runs)


def read_listed(path: Path) -> tuple[ListedRun, ...]:
    """Return the runs that the YAML file `path` lists; their folders are relative to that of `path`.

    Raises ConfigurationError.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
        return _LISTED_RUNS.validate_json(json.dumps(content))
    except (OSError, yaml.YAMLError, TypeError) as error:
        fault = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    except ValidationError as error:
        fault = first_validation_error(error)
    raise ConfigurationError(
        f"calibrate.runs: {path} cannot be read ({fault}); expected a YAML list with a line for each run, "
        "such as - {logs: DIR, overrides: [split.prefill_workers=13]}."
    )


def calibrate(
    settings: CalibrateSettings, calibration: Calibration, runs: Sequence[MeasuredRun], progress: Progress
) -> CalibrationResult:
    """Fit parameters of the simulated rack to measured runs and write the settings file.

    Parameters
    ----------
    settings
        Names the parameters, and the settings file if one is to be written.
    calibration
        Values where the fit starts: the centres of the priors.
    runs
        The measured runs, at least one.
    progress
        Receives the misfit after every evaluation.

    Returns
    -------
    CalibrationResult
        Tables of the fit, and the arguments that select it.

    Raises
    ------
    ConfigurationError
        A parameter cannot be fitted, or the file cannot be written.
    """
    datasets = [run.spec.load.dataset for run in runs if not run.recorded] or [runs[0].spec.load.dataset]
    parameters, *others = (find_parameters(settings.parameters, calibration, dataset) for dataset in datasets)
    if any(other != parameters for other in others):
        raise ConfigurationError(
            "calibrate.parameters: found runs of different datasets; expected one where a parameter of it is "
            "fitted. Calibrate them one after another, or leave load.dataset.* out of the parameters."
        )
    fitted = fit(runs, calibration, parameters, progress)
    tables = [compare_run(run, calibration, fitted_values(fitted)) for run in runs]
    arguments = _command_arguments(settings, fitted)
    if settings.to is not None:
        make_folder(Path(settings.to).parent, parents=True)
        write_text(Path(settings.to), render_settings(calibration, runs, tables, fitted))
    sections = [render_runs(runs, tables), render_parameters(fitted), f"seeds     {describe_seeds(runs)}"]
    return CalibrationResult("\n\n".join(sections), arguments)


def learned_calibration(
    settings: CalibrateSettings, calibration: Calibration, study: StudyFolder
) -> CalibrationResult:
    """Write the calibration that the search of a study learned, and check it with the full simulator.

    Parameters
    ----------
    settings
        Names the settings file if one is to be written.
    calibration
        The calibration with which the search began.
    study
        The study with its posterior.

    Returns
    -------
    CalibrationResult
        The settings file, a table of the best trials, and the arguments that select the calibration.

    Raises
    ------
    ConfigurationError
        The study learned no calibration, or the file cannot be written.
    ResumableError
        The configuration of one of the best trials is missing.
    """
    posterior = read_posterior(study.root)
    if posterior is None:
        raise ConfigurationError(
            f"calibrate.learned: the search of {study.root} learned no rack; expected a study with "
            "search=surrogate. What its trials measured can be fitted: calibrate.study."
        )
    text = render_learned(calibration, study.root.name, posterior)
    changed = {
        key: value for key, value in posterior.calibration.items() if value != getattr(calibration, key)
    }
    arguments = tuple(f"cluster.calibration.{key}={value!r}" for key, value in changed.items())
    if settings.to is not None:
        path = Path(settings.to)
        make_folder(path.parent, parents=True)
        write_text(path, text)
        arguments = ("--config-dir", str(path.parent.parent), f"cluster={path.stem}")
    table = validate_learned(study, calibration.model_copy(update=posterior.calibration))
    return CalibrationResult("\n".join([text, *table]).rstrip(), arguments)


def _command_arguments(settings: CalibrateSettings, fitted: Sequence[FittedParameter]) -> tuple[str, ...]:
    """Return the arguments that select the calibration; overrides for what the file cannot hold."""
    in_file = settings.to is not None
    overrides = [
        f"{estimate.parameter.override}={estimate.value!r}"
        for estimate in fitted
        if estimate.parameter.of_dataset or not in_file
    ]
    if settings.to is None:
        return tuple(overrides)
    path = Path(settings.to)
    return ("--config-dir", str(path.parent.parent), f"cluster={path.stem}", *overrides)
