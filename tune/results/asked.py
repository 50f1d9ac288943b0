"""Several runs on one deployment: `asked.json` in the folder of each probe, `capacity.json` beside them, and
`goal.json` where the deployment has a rate to beat."""

from __future__ import annotations

from pathlib import Path

from tune.results.files import read_record, write_text
from tune.spec.typed import NonNegativeFloat, PositiveFloat, PositiveInt, Typed

_ASKED_FILE, _CAPACITY_FILE = "asked.json", "capacity.json"
GOAL_FILE = "goal.json"


class Asked(Typed):
    """What one probe of several was; `queries` None is the run of full length.

    `stopped`: it was given up when it could hold its SLO no more; its record ends where that was certain.
    """

    target_qps: PositiveFloat
    queries: PositiveInt | None
    stopped: bool


class Goal(Typed):
    """What an attempt is for, beyond its trial: to come to `beat_qps`, the rate of the best trial before it,
    or, where `expected`, what others are expected to come to if it comes to no more."""

    beat_qps: PositiveFloat
    expected: bool = False


class Capacity(Typed):
    """What the search for the highest rate came to. `prefill_qps`, `decode_qps`: what each pool could do were
    the other no limit. `fitted`: what the forecast believes of the rack, by the name of a figure of the
    calibration. `censored`: given up as clearly below the rate to beat."""

    confirmed_qps: PositiveFloat | None
    missed_qps: PositiveFloat | None
    boundary_qps: NonNegativeFloat
    prefill_qps: NonNegativeFloat | None = None
    decode_qps: NonNegativeFloat | None = None
    fitted: dict[str, float]
    censored: bool = False


def write_asked(probe: Path, record: Asked) -> None:
    """Raises FixCommand where the folder of the probe cannot be written."""
    write_text(probe / _ASKED_FILE, record.model_dump_json() + "\n")


def read_asked(probe: Path) -> Asked | None:
    """None for the one run of its deployment. Raises RunAgain for a torn file."""
    return read_record(probe / _ASKED_FILE, Asked)


def write_capacity(attempt: Path, record: Capacity) -> None:
    """Raises FixCommand where the folder of the attempt cannot be written."""
    write_text(attempt / _CAPACITY_FILE, record.model_dump_json(indent=1) + "\n")


def read_capacity(attempt: Path) -> Capacity | None:
    """None where no rate was searched for. Raises RunAgain for a torn file."""
    return read_record(attempt / _CAPACITY_FILE, Capacity)


def write_goal(attempt: Path, record: Goal) -> None:
    """Raises FixCommand where the folder of the attempt cannot be written."""
    write_text(attempt / GOAL_FILE, record.model_dump_json() + "\n")


def read_goal(attempt: Path) -> Goal | None:
    """None where there is no rate to beat. Raises RunAgain for a torn file."""
    return read_record(attempt / GOAL_FILE, Goal)
