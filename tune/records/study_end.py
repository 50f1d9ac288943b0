"""Define why a study ended, as `study.json` records it."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel, NonNegativeInt

StudyEndKind = Literal["trials", "points", "gain", "budget", "failures", "harness", "interrupted"]
"""`trials`: the planned number is reached. `points`: every point of the space was proposed. `gain`: another
trial is expected to gain too little. `budget`: the GPU-hours are spent. `failures`: too many trials failed in
a row, or the last one. `harness`: what every trial needs is at fault. `interrupted`:
Ctrl-C."""


class StudyEnd(FrozenModel):
    """Hold why a study ended, and what was on record by then.

    `proposed` counts proposals with an outcome, `configurations` different ones, `infeasible` those of them
    that broke a rule or were rejected by an engine. `expected_gain_frac` is the share by which another trial
    was expected to raise the best rate, None where the search predicts none.
    """

    kind: StudyEndKind
    proposed: NonNegativeInt
    configurations: NonNegativeInt
    infeasible: NonNegativeInt
    expected_gain_frac: float | None = None
