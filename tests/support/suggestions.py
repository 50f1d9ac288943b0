"""Ask a proposer for its next point."""

from __future__ import annotations

from tune.spec.bind import Point
from tune.study.proposer import Proposer, TrialSuggestion


def suggested(proposer: Proposer, number: int) -> Point | None:
    """Return the point that the proposer suggests for trial `number`; None where the search ends."""
    suggestion = proposer.suggest(number)
    return suggestion.point if isinstance(suggestion, TrialSuggestion) else None
