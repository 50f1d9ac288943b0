"""What several rooms' tests share: short runs that are real in everything but their length."""

from __future__ import annotations

from pathlib import Path

import pytest

SHORT = ("load.min_duration_s=40.0", "load.concatenate_permutation=false", "study.parallel=4")
"""Overrides for runs of some 600 queries: long enough for a p99 verdict, over in milliseconds."""


@pytest.fixture
def short() -> tuple[str, ...]:
    return SHORT


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).parents[1]
