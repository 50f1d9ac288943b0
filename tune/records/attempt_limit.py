"""Read and write `limit.json`: how long an attempt may hold its GPUs, as the budget of its study allows."""

from __future__ import annotations

from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, PositiveFloat

LIMIT_FILE, LIMIT_RULE = "limit.json", "gpu_hours"
"""Name of the file, and of the rule by which an attempt that was ended at its limit is known."""


class AttemptLimit(FrozenModel):
    """Hold the seconds after which the orchestrator ends the attempt, whether a driver lives or not."""

    occupied_s: PositiveFloat

    @property
    def reason(self) -> str:
        """Return why an attempt was ended that reached its limit."""
        return f"stopped after {self.occupied_s:.0f} s, its share of study.max_gpu_hours"


def write_limit(attempt: Path, limit: AttemptLimit) -> None:
    """Write limit.json into the folder `attempt`; raise ConfigurationError where that fails."""
    write_text(attempt / LIMIT_FILE, limit.model_dump_json() + "\n")


def read_limit(attempt: Path) -> AttemptLimit | None:
    """Return the limit of an attempt, None without a budget; raise ResumableError for a torn file."""
    return read_record(attempt / LIMIT_FILE, AttemptLimit)
