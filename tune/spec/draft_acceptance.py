"""Hold how often the draft tokens of multi-token prediction are accepted, by their depth."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field


def _falling(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Return `shares`. Raises ValueError where they rise with the depth."""
    if any(deeper > share for share, deeper in pairwise(shares)):
        raise ValueError(
            "expected shares that do not rise: a draft token is accepted only with all those before it"
        )
    return shares


Acceptance = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1), AfterValidator(_falling)
]
"""Share of decode steps in which the draft token of depth 1, 2, ... is accepted."""

PUBLISHED_ACCEPTANCE: Acceptance = (0.79, 0.45, 0.25)
"""Acceptance where a calibration has none.

Source: InferenceX, golden_al_distribution/dsv4_mtp.yaml: steps of DeepSeek-V4-Pro, thinking, make 1.79 tokens
with one draft token and 2.49 with three. Of the 0.70 of depths 2 and 3 the second is taken to follow on the
first as often as the third on the second (57 %). No such curve of DeepSeek-R1 is published.
"""
