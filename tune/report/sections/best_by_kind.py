"""Compute the picture of the answer: what each kind of configuration gives, baseline and best marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.configuration_kinds import BestOfKind
from tune.report.trial_status import baseline_trial

MAX_KINDS = 7
"""Number of kinds drawn; with more rows the picture leaves the first screen."""

HEADROOM_FRAC = 0.04
"""Free space at the right end of the axis, as a share of its length."""


@dataclass(frozen=True)
class KindRow:
    """Hold one row of the picture; lengths are percent of the axis.

    `held` is the length of the bar, None if nothing held; `expected` is that of a predicted kind. `missed` is
    where the lowest rate that missed lies, and `interval` where the interval begins and ends.
    """

    label: str
    mark: str
    trials: int
    text: str
    is_recommended: bool
    held: float | None
    expected: float | None
    missed: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class KindPicture:
    """Hold the rows of the picture, best first, and where the baseline lies in percent of the axis.

    `others` is the number of measured kinds left out.
    """

    title: str
    rows: tuple[KindRow, ...]
    baseline: float | None
    baseline_text: str
    others: int
    caption: str


def kind_picture(
    study: StudyRecord, outcomes: Sequence[Outcome], kinds: Sequence[BestOfKind]
) -> KindPicture | None:
    """Return the picture of `kinds`, best first, or None of fewer than two.

    `outcomes` holds each trial once.
    """
    if len(kinds) < 2:
        return None
    farther = [kind for kind in kinds[MAX_KINDS:] if kind.is_baseline]
    shown = [*kinds[: MAX_KINDS - len(farther)], *farther]
    baseline = baseline_trial(study, outcomes)
    level = baseline.output_tps_per_gpu if baseline and baseline.feasible else None
    ends = [end for kind in shown for end in (kind.held, kind.missed, *(_line(kind) or ())) if end]
    if not ends:
        return None
    full = max([*ends, level or 0.0]) * (1 + HEADROOM_FRAC)
    return KindPicture(
        title="What each kind gives, output tokens/s/GPU",
        rows=tuple(_row(kind, full) for kind in shown),
        baseline=level and 100 * level / full,
        baseline_text=f"baseline {formatting.format_figure(level, 4)}" if level else "",
        others=sum(kind.trials > 0 for kind in kinds if kind not in shown),
        caption=_caption(shown),
    )


def _caption(kinds: Sequence[BestOfKind]) -> str:
    """Return how to read the picture."""
    text = "Bar: the most that held the SLO."
    if any(kind.missed for kind in kinds):
        text += (
            " Hatched: up to the lowest rate above it that missed, so the limit lies between; without it no "
            "higher rate was measured."
        )
    if any(kind.is_confirmed for kind in kinds):
        text += " A confirmed bar ends at the guaranteed rate; its line is the interval of the mean capacity."
    if any(kind.interval and not kind.is_confirmed for kind in kinds):
        text += (
            " Line: 90 % interval beside the recommended one, by the simulator's own error; where it reaches "
            "the recommended bar, the simulator cannot tell which is better."
        )
    if any(kind.expected for kind in kinds):
        text += (
            " Dashed outline: predicted by the search, as no trial held; its line is the 90 % interval. "
            "posterior.json holds every predicted kind."
        )
    return text


def _line(kind: BestOfKind) -> tuple[float, float] | None:
    """Return the ends of the line that shows the interval of a kind, None without one."""
    return (kind.expected.low, kind.expected.high) if kind.expected else kind.interval


def _row(kind: BestOfKind, full: float) -> KindRow:
    """Return the row of a kind; `full` is the value at the right end of the axis."""
    marks = {
        "recommended": kind.is_recommended,
        "baseline": kind.is_baseline,
        "confirmed": kind.is_confirmed,
        "predicted": kind.expected is not None,
        "none held": kind.expected is not None and kind.trials > 0,
    }
    figure, line = kind.output_tps_per_gpu, _line(kind)
    return KindRow(
        label=kind.label,
        mark=", ".join(mark for mark, applies in marks.items() if applies),
        trials=kind.trials,
        text="none held" if figure is None else formatting.format_figure(figure, 4),
        is_recommended=kind.is_recommended,
        held=kind.held and 100 * kind.held / full,
        expected=100 * kind.expected.median / full if kind.expected else None,
        missed=kind.missed and min(100.0, 100 * kind.missed / full),
        interval=line and (100 * line[0] / full, min(100.0, 100 * line[1] / full)),
    )
