"""Run action=calibrate: fit the simulated rack to measured runs, or to the posterior of a study."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune.cli.output import show
from tune.cli.runnable import require_runnable
from tune.cli.studies import recorded_study
from tune.config import ComposedConfig, compose_overrides, shipped_options
from tune.errors import ConfigurationError, ResumableError

if TYPE_CHECKING:
    from tune.calibrate.calibration import CalibrationResult
    from tune.spec.trial import TrialSpec


def calibrate_action(composition: ComposedConfig) -> None:
    """Fit the calibration, print the tables, and write it where calibrate.to names a file."""
    from tune.calibrate import calibration as fitting
    from tune.cli.progress import evaluations_progress

    def described(overrides: Sequence[str]) -> TrialSpec:
        """Return the trial that a measured run with these overrides was."""
        words = (*composition.overrides, *overrides)
        settings = compose_overrides(words, composition.config_dirs).settings
        require_runnable(settings, again=True)
        return settings.trial_spec

    requested = composition.settings.calibrate
    start = fitting.starting_calibration(composition.settings, shipped_options("cluster"))
    if requested.learned is not None:
        root = Path(composition.settings.runs_dir) / requested.learned
        study, _ = recorded_study(root, "calibrate.learned")
        _print_result(fitting.learned_calibration(requested, start, study))
        return
    measured = None
    if requested.study is not None:
        root = Path(composition.settings.runs_dir) / requested.study
        measured, _ = recorded_study(root, "calibrate.study")
    try:
        runs = fitting.read_measured_runs(requested, measured, described)
    except ResumableError as error:
        raise ConfigurationError(str(error)) from None
    with evaluations_progress() as progress:
        result = fitting.calibrate(requested, start, runs, progress)
    _print_result(result)


def _print_result(result: CalibrationResult) -> None:
    """Print the tables of a calibration and the command that uses it."""
    show(f"{result.text}\nuse       {shlex.join(['python', '-m', 'tune', *result.arguments])}")
