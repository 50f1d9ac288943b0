"""action=calibrate: measured runs in, the rack that resembles them out, as text and as a settings file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune.calibrate.comparison import compare
from tune.calibrate.fit import FittedParameter, Progress, fit, values_of
from tune.calibrate.parameters import find_parameters
from tune.calibrate.runs import MeasuredRun, run_of_logs, runs_of_study
from tune.calibrate.settings_file import check_target, render_settings
from tune.calibrate.text import describe_seeds, render_parameters, render_runs
from tune.errors import FixCommand
from tune.results.files import write_text
from tune.results.folder import StudyFolder
from tune.spec.calibrate import Calibrate
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class Calibrated:
    """What a calibration came to: tables for people, and the words of a command that uses it."""

    text: str
    words: tuple[str, ...]


def check_asked(settings: Settings, shipped: Sequence[str]) -> Calibration:
    """The calibration where a fit starts. Raises FixCommand for settings that cannot lead to one.

    `shipped` are the options of the group `cluster` that come with tune.
    """
    asked = settings.calibrate
    if settings.cluster.calibration is None:
        raise FixCommand(
            "action=calibrate fits the simulated rack; found a cluster without calibration, expected "
            "cluster=sim. Leave cluster=slurm out: trials that a real cluster measured are read all the same."
        )
    if asked.trials is not None and asked.study is None:
        raise FixCommand("calibrate.trials names trials of a study; expected calibrate.study=NAME beside it.")
    if asked.study is None and asked.logs is None and not asked.runs:
        raise FixCommand(
            "action=calibrate needs measured runs: calibrate.study=NAME, calibrate.logs=DIR with the "
            "settings of that run, or calibrate.runs=[{logs: DIR, overrides: [...]},...]."
        )
    if asked.to is not None:
        check_target(Path(asked.to), shipped)
    return settings.cluster.calibration


def measured_runs(
    asked: Calibrate, study: StudyFolder | None, described: Callable[[Sequence[str]], TrialSpec]
) -> tuple[MeasuredRun, ...]:
    """Every run that `asked` names, those of `study` first; `described` composes the overrides of a log.

    Raises as tune.calibrate.runs says.
    """
    runs = list(runs_of_study(study, asked.trials)) if study else []
    if asked.logs is not None:
        runs.append(run_of_logs(Path(asked.logs), described(())))
    runs += [run_of_logs(Path(entry.logs), described(entry.overrides)) for entry in asked.runs]
    return tuple(runs)


def calibrate(
    asked: Calibrate, calibration: Calibration, runs: Sequence[MeasuredRun], progress: Progress
) -> Calibrated:
    """Fit the parameters that `asked` names, starting at `calibration`, and write the settings file.

    Raises FixCommand for parameters that cannot be fitted and a file that cannot be written.
    """
    datasets = [run.spec.load.dataset for run in runs if not run.asked] or [runs[0].spec.load.dataset]
    parameters, *others = (find_parameters(asked.parameters, calibration, dataset) for dataset in datasets)
    if any(other != parameters for other in others):
        raise FixCommand(
            "calibrate.parameters: found runs of different datasets; expected one where a parameter of it is "
            "fitted. Calibrate them one after another, or leave load.dataset.* out of the parameters."
        )
    fitted = fit(runs, calibration, parameters, progress)
    tables = [compare(run, calibration, values_of(fitted)) for run in runs]
    words = _words(asked, fitted)
    if asked.to is not None:
        write_text(Path(asked.to), render_settings(calibration, runs, tables, fitted))
    text = [render_runs(runs, tables), render_parameters(fitted), f"seeds     {describe_seeds(runs)}"]
    return Calibrated("\n\n".join(text), words)


def _words(asked: Calibrate, fitted: Sequence[FittedParameter]) -> tuple[str, ...]:
    """What selects the calibration on a command line; what the file cannot hold as overrides."""
    held = asked.to is not None
    overrides = [
        f"{one.parameter.override}={one.value!r}" for one in fitted if one.parameter.of_dataset or not held
    ]
    if asked.to is None:
        return tuple(overrides)
    path = Path(asked.to)
    return ("--config-dir", str(path.parent.parent), f"cluster={path.stem}", *overrides)
