"""Define the classes of failures, and rules that recognise it by its words."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from tune.spec.base import FrozenModel, PositiveInt

FailureCause = Literal["configuration", "infrastructure", "harness"]
"""`configuration`: the engine rejects its settings, or memory does not suffice; the search learns from it,
and the trial is never repeated. `infrastructure`: a node, the network, the file system or the scheduler; the
trial is run again and the search learns nothing. `harness`: what every trial needs is at fault (tune, its
load client, the checkpoint, a disk, credentials); the study stops, as every further trial would fail."""


def _compiles(pattern: str) -> str:
    """Return `pattern`. Raises ValueError where it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
    return pattern


class FailureRule(FrozenModel):
    """Describe what a line of a log means.

    Attributes
    ----------
    name
        Name of the rule, in words with underscores.
    pattern
        Regular expression that is searched for in each line.
    cause
        Class of the failure.
    meaning
        What happened, in a few words.
    next_step
        What the user does about it.
    source
        Where such lines come from.
    repeats
        Whether another attempt may succeed although nobody did anything; False where somebody decided the
        end, or a setting has to change.
    """

    name: str
    pattern: Annotated[str, AfterValidator(_compiles)]
    cause: FailureCause
    meaning: str
    next_step: str
    source: str
    repeats: bool = True


class FailureEvidence(FrozenModel):
    """Hold the line by which a rule recognised a failure.

    `file` is relative to the folder of the trial and `line` counts from 1; both are None where the words are
    those of the error message itself. The other fields are those of the rule.
    """

    rule: str
    cause: FailureCause
    meaning: str
    next_step: str
    text: str
    file: str | None = None
    line: PositiveInt | None = None
    repeats: bool = True
