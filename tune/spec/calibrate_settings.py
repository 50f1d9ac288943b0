"""What action=calibrate is asked: which measured runs, which parameters, where the answer goes."""

from __future__ import annotations

from tune.spec.base import FrozenModel, NonNegativeInt


class ListedRun(FrozenModel):
    """LoadGen's logs in the folder `logs`, of a run that differs by `overrides` from the command line."""

    logs: str
    overrides: tuple[str, ...] = ()


class CalibrateSettings(FrozenModel):
    """The settings `calibrate.*`; runs named in several ways are fitted together.

    `runs` is a YAML file with a list of ListedRun. `learned` names a study whose search learned the rack
    (search=surrogate): what it believes is the answer, and nothing is fitted.
    """

    study: str | None
    learned: str | None
    trials: tuple[str | NonNegativeInt, ...] | None
    logs: str | None
    runs: str | None
    parameters: tuple[str, ...]
    to: str | None
