"""End a study whose trials fail for a cause that none of them can escape."""

from __future__ import annotations

from collections.abc import Iterable

from tune.records.outcome import Outcome
from tune.study.recorded_end import HarnessFailed

MAX_FAILED_IN_A_ROW = 2
"""Number of consecutive failures that end a study: one may be a broken node, two have a common cause."""

_FIX_AND_REPEAT = "Fix the cause and run the same command again."


def require_harness(outcomes: Iterable[Outcome]) -> None:
    """Raise HarnessFailed where one of the outcomes failed by a fault of what every trial needs."""
    for outcome in outcomes:
        last = outcome.attempts[-1] if outcome.attempts else None
        if outcome.status == "failed" and last and last.cause == "harness":
            next_step = last.evidence.next_step if last.evidence else _FIX_AND_REPEAT
            raise HarnessFailed(
                f"Trial {outcome.number} failed, as every other would: {outcome.reason}\n"
                f"Everything is on record. {next_step}"
            )
