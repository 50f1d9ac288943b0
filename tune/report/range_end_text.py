"""Describe ranges that end at the best value, and write the command that widens them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from tune.analysis.range_ends import RangeEnd
from tune.records.study_record import StudyRecord
from tune.report import formatting

_MORE_TRIALS_FRAC = 0.5
"""Share of the planned trials that the command adds where all are on record."""


def describe_ends(ends: Sequence[RangeEnd]) -> str:
    """Return one sentence on the ranges of which a wider one may give more; empty without any."""
    parts = [
        f"{end.path} = {formatting.setting(end.value)} "
        f"({'highest' if end.is_highest else 'lowest'}; widen to {formatting.setting(end.wider)}"
        f"{f', simulated: {end.expected}' if end.expected else ''})"
        for end in worth_widening(ends)
    ]
    if not parts:
        return ""
    return f"The best value is the end of its range, so a wider one may give more: {', '.join(parts)}"


def describe_final_ends(ends: Sequence[RangeEnd]) -> str:
    """Return a sentence a range beyond whose end the simulator expects no gain; empty without any."""
    parts = [
        f"{end.path} = {formatting.setting(end.value)} is the {'highest' if end.is_highest else 'lowest'} "
        f"value of its range; simulated: {formatting.setting(end.wider)} gains nothing"
        for end in ends
        if end.expected == ""
    ]
    return ". ".join(parts)


def worth_widening(ends: Sequence[RangeEnd]) -> list[RangeEnd]:
    """Return the ends beyond which a gain is expected, or nothing was simulated."""
    return [end for end in ends if end.expected != ""]


def widening_command(study: StudyRecord, ends: Sequence[RangeEnd]) -> str:
    """Return the command that continues the study with wider ranges where that may give more.

    Its trials on record count.
    """
    words = [word for end in worth_widening(ends) for word in shlex.split(end.overrides)]
    if study.ended is None or study.ended.kind == "trials":
        words.append(f"study.n_trials={math.ceil(study.n_trials * (1 + _MORE_TRIALS_FRAC))}")
    words.append(f"study.name={study.name}")
    replaced = tuple(f"{word.partition('=')[0]}=" for word in words)
    kept = [word for word in study.command if not word.startswith(replaced)]
    return formatting.command([*kept, *words])
