"""Hold the settings of action=calibrate: measured runs, parameters to fit, file for the result."""

from __future__ import annotations

from tune.spec.base import FrozenModel, NonNegativeInt


class ListedRun(FrozenModel):
    """Name the folder `logs` with LoadGen's logs of a run.

    The settings of the run are those of the command line, changed by `overrides`.
    """

    logs: str
    overrides: tuple[str, ...] = ()


class CalibrateSettings(FrozenModel):
    """Hold the settings `calibrate.*`; runs that are named in several ways are fitted together.

    `runs` is a YAML file with a list of ListedRun. `learned` names a study with search=surrogate: the
    posterior of its search is the result, and nothing is fitted.
    """

    study: str | None
    learned: str | None
    trials: tuple[str | NonNegativeInt, ...] | None
    logs: str | None
    runs: str | None
    parameters: tuple[str, ...]
    to: str | None
