"""action=calibrate: measured runs in, the rack that resembles them out, as text and as a settings file."""

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
from tune.core.files import first_validation_error, write_text
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.posterior_summary import read_posterior
from tune.spec.calibrate_settings import CalibrateSettings, ListedRun
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec

_LISTED = TypeAdapter(Annotated[tuple[ListedRun, ...], Field(min_length=1)])


@dataclass(frozen=True)
class CalibrationResult:
    """What a calibration came to: tables for people, and the words of a command that uses it."""

    text: str
    words: tuple[str, ...]


def starting_calibration(settings: Settings, shipped: Sequence[str]) -> Calibration:
    """The calibration where a fit starts. Raises ConfigurationError for settings that cannot lead to one.

    `shipped` are the options of the group `cluster` that come with tune.
    """
    asked = settings.calibrate
    if settings.cluster.kind != "sim" or settings.cluster.calibration is None:
        raise ConfigurationError(
            f"action=calibrate fits the simulated rack; found cluster={settings.cluster.kind}, expected "
            "cluster=sim. Leave it out: trials that another place measured are read all the same."
        )
    if asked.trials is not None and asked.study is None:
        raise ConfigurationError(
            "calibrate.trials names trials of a study; expected calibrate.study=NAME beside it."
        )
    sources = (asked.study, asked.logs, asked.runs)
    if asked.learned is not None and any(sources):
        raise ConfigurationError(
            "calibrate.learned takes what a search believes as it is; expected it without calibrate.study, "
            "calibrate.logs and calibrate.runs, which are fitted."
        )
    if asked.learned is None and not any(sources):
        raise ConfigurationError(
            "action=calibrate needs measured runs: calibrate.study=NAME, calibrate.logs=DIR with the "
            "settings of that run, or calibrate.runs=FILE.yaml with a list of {logs: DIR, overrides: [...]}."
        )
    if asked.to is not None:
        check_target(Path(asked.to), shipped)
    return settings.cluster.calibration


def read_measured_runs(
    asked: CalibrateSettings, study: StudyFolder | None, described: Callable[[Sequence[str]], TrialSpec]
) -> tuple[MeasuredRun, ...]:
    """Every run that `asked` names, those of `study` first; `described` composes the overrides of a log.

    Raises as tune.calibrate.measured_runs and read_listed say.
    """
    runs = list(runs_of_study(study, asked.trials)) if study else []
    if asked.logs is not None:
        runs.append(run_of_logs(Path(asked.logs), described(())))
    if asked.runs is not None:
        path = Path(asked.runs)
        runs += [
            run_of_logs(path.parent / entry.logs, described(entry.overrides)) for entry in read_listed(path)
        ]
    return tuple(runs)


def read_listed(path: Path) -> tuple[ListedRun, ...]:
    """The runs that the YAML file `path` lists; their folders are relative to its own. Raises ConfigurationError."""
    try:
        found = yaml.safe_load(path.read_bytes())
        return _LISTED.validate_json(json.dumps(found))
    except (OSError, yaml.YAMLError, TypeError) as error:
        fault = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
    except ValidationError as error:
        fault = first_validation_error(error)
    raise ConfigurationError(
        f"calibrate.runs: {path} cannot be read ({fault}); expected a YAML list with a line for each run, "
        "such as - {logs: DIR, overrides: [split.prefill_workers=13]}."
    )


def calibrate(
    asked: CalibrateSettings, calibration: Calibration, runs: Sequence[MeasuredRun], progress: Progress
) -> CalibrationResult:
    """Fit the parameters that `asked` names, starting at `calibration`, and write the settings file.

    Raises ConfigurationError for parameters that cannot be fitted and a file that cannot be written.
    """
    datasets = [run.spec.load.dataset for run in runs if not run.asked] or [runs[0].spec.load.dataset]
    parameters, *others = (find_parameters(asked.parameters, calibration, dataset) for dataset in datasets)
    if any(other != parameters for other in others):
        raise ConfigurationError(
            "calibrate.parameters: found runs of different datasets; expected one where a parameter of it is "
            "fitted. Calibrate them one after another, or leave load.dataset.* out of the parameters."
        )
    fitted = fit(runs, calibration, parameters, progress)
    tables = [compare_run(run, calibration, fitted_values(fitted)) for run in runs]
    words = _words(asked, fitted)
    if asked.to is not None:
        write_text(Path(asked.to), render_settings(calibration, runs, tables, fitted))
    text = [render_runs(runs, tables), render_parameters(fitted), f"seeds     {describe_seeds(runs)}"]
    return CalibrationResult("\n\n".join(text), words)


def learned_calibration(
    asked: CalibrateSettings, calibration: Calibration, study: StudyFolder
) -> CalibrationResult:
    """What the search of `study`, which began with `calibration`, believes of the rack; the settings file;
    and whether the full simulator, on that rack, agrees with the best trials.

    Raises ConfigurationError where its search learned none, or the file cannot be written; ResumableError as recheck says.
    """
    belief = read_posterior(study.root)
    if belief is None:
        raise ConfigurationError(
            f"calibrate.learned: the search of {study.root} learned no rack; expected a study with "
            "search=surrogate. What its trials measured can be fitted: calibrate.study."
        )
    text = render_learned(calibration, study.root.name, belief)
    changed = {key: value for key, value in belief.calibration.items() if value != getattr(calibration, key)}
    words = tuple(f"cluster.calibration.{key}={value!r}" for key, value in changed.items())
    if asked.to is not None:
        path = Path(asked.to)
        write_text(path, text)
        words = ("--config-dir", str(path.parent.parent), f"cluster={path.stem}")
    table = validate_learned(study, calibration.model_copy(update=belief.calibration))
    return CalibrationResult("\n".join([text, *table]).rstrip(), words)


def _words(asked: CalibrateSettings, fitted: Sequence[FittedParameter]) -> tuple[str, ...]:
    """What selects the calibration on a command line; what the file cannot hold as overrides."""
    held = asked.to is not None
    overrides = [
        f"{one.parameter.override}={one.value!r}" for one in fitted if one.parameter.of_dataset or not held
    ]
    if asked.to is None:
        return tuple(overrides)
    path = Path(asked.to)
    return ("--config-dir", str(path.parent.parent), f"cluster={path.stem}", *overrides)
