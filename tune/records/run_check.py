"""Define the record of one check of a run: whether what was measured is what was meant."""

from __future__ import annotations

from typing import Literal

from tune.spec.base import FrozenModel

CheckResult = Literal["as_meant", "off", "not_counted"]


class RunCheck(FrozenModel):
    """Hold what one check of a probe found.

    `name` and `threshold` are those of tune/analysis/run_checks/table.py. `found` says in words what the run
    shows, or why nothing is known. `evidence` holds files, relative to the trial's folder, with a line of
    theirs where one line shows it.
    """

    name: str
    result: CheckResult
    found: str
    threshold: str
    evidence: tuple[str, ...] = ()
