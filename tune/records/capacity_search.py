"""Several runs on one deployment: `probe_request.json` in the folder of each probe, `capacity.json` beside them, and
`early_stop.json` where the deployment has a rate to beat."""

from __future__ import annotations

from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, NonNegativeFloat, PositiveFloat, PositiveInt

_ASKED_FILE, _CAPACITY_FILE = "probe_request.json", "capacity.json"
EARLY_STOP_FILE = "early_stop.json"


class ProbeRequest(FrozenModel):
    """What one probe of several was; `queries` None is the run of full length.

    `stopped`: it was given up when it could hold its SLO no more; its record ends where that was certain.
    """

    target_qps: PositiveFloat
    queries: PositiveInt | None
    stopped: bool


class EarlyStopThreshold(FrozenModel):
    """What an attempt is for, beyond its trial: to come to `early_stop_qps`, the rate of the best trial before it,
    or, where `expected`, what others are expected to come to if it comes to no more."""

    early_stop_qps: PositiveFloat
    expected: bool = False


class CapacityRecord(FrozenModel):
    """What the search for the highest rate came to. `prefill_capacity_qps`, `decode_capacity_qps`: what each pool could do were
    the other no limit. `fitted`: what the forecast believes of the rack, by the name of a figure of the
    calibration. `censored`: given up as clearly below the rate to beat."""

    verified_qps: PositiveFloat | None
    missed_qps: PositiveFloat | None
    capacity_qps: NonNegativeFloat
    prefill_capacity_qps: NonNegativeFloat | None = None
    decode_capacity_qps: NonNegativeFloat | None = None
    fitted: dict[str, float]
    censored: bool = False


def write_probe_request(probe: Path, record: ProbeRequest) -> None:
    """Raises ConfigurationError where the folder of the probe cannot be written."""
    write_text(probe / _ASKED_FILE, record.model_dump_json() + "\n")


def read_probe_request(probe: Path) -> ProbeRequest | None:
    """None for the one run of its deployment. Raises ResumableError for a torn file."""
    return read_record(probe / _ASKED_FILE, ProbeRequest)


def write_capacity(attempt: Path, record: CapacityRecord) -> None:
    """Raises ConfigurationError where the folder of the attempt cannot be written."""
    write_text(attempt / _CAPACITY_FILE, record.model_dump_json(indent=1) + "\n")


def read_capacity(attempt: Path) -> CapacityRecord | None:
    """None where no rate was searched for. Raises ResumableError for a torn file."""
    return read_record(attempt / _CAPACITY_FILE, CapacityRecord)


def write_early_stop(attempt: Path, record: EarlyStopThreshold) -> None:
    """Raises ConfigurationError where the folder of the attempt cannot be written."""
    write_text(attempt / EARLY_STOP_FILE, record.model_dump_json() + "\n")


def read_early_stop(attempt: Path) -> EarlyStopThreshold | None:
    """None where there is no rate to beat. Raises ResumableError for a torn file."""
    return read_record(attempt / EARLY_STOP_FILE, EarlyStopThreshold)
