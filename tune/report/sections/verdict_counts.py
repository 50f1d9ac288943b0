"""Count in plain words how many trials ended in each way, and why those without a result have none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tune.records.outcome import Outcome
from tune.report import formatting
from tune.report.trial_status import (
    TRIAL_STATUS_MEANING,
    TRIAL_STATUS_WORDS,
    TRIAL_STATUSES,
    TrialStatus,
    limit_shares,
    trial_status,
)

MAX_REASON_CHARACTERS = 160
"""Longest reason that is quoted; the table shows every reason in full."""


def verdict_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return one sentence per status that occurs: count, meaning, and the most frequent reason."""
    groups: dict[TrialStatus, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(trial_status(outcome), []).append(outcome)
    return [_line(status, groups[status]) for status in TRIAL_STATUSES if status in groups]


def _line(status: TrialStatus, group: Sequence[Outcome]) -> str:
    """Return the sentence of one status."""
    word, meaning = TRIAL_STATUS_WORDS[status], TRIAL_STATUS_MEANING[status]
    return f"{formatting.plural(len(group), 'trial')} {word}: {meaning}.{_why(status, group)}"


def _why(status: TrialStatus, group: Sequence[Outcome]) -> str:
    """Return what most trials of a group exceeded, or the reason that most of them give."""
    if status in ("feasible", "some_shuffles"):
        return ""
    if status == "slo_violated":
        exceeded = Counter(name for o in group for name, share in limit_shares(o).items() if share > 1)
        parts = (f"{name} in {count:,}" for name, count in exceeded.most_common())
        text = ", ".join(parts)
        return f" Exceeded: {text}." if text else ""
    reasons = Counter(_without_figures(o.reason) for o in group if o.reason)
    if not reasons:
        return ""
    kind, count = reasons.most_common(1)[0]
    example = next(o.reason for o in group if o.reason and _without_figures(o.reason) == kind)
    if len(example) > MAX_REASON_CHARACTERS:
        example = f"{example[:MAX_REASON_CHARACTERS]}…"
    return f" Reason of {count:,}, for example: {example.rstrip('.')}."


def _without_figures(reason: str) -> str:
    """Return a reason without its numbers, so that equal causes count as one."""
    return re.sub(r"\d[\d.,]*", "#", reason)
