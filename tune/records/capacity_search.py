"""Read and write the records of a capacity search, which runs several probes on one deployment.

`probe_request.json` lies in the folder of each probe, `capacity.json` in the folder of the attempt, and
`early_stop.json` beside it where the deployment has a rate to beat.
"""

from __future__ import annotations

from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, NonNegativeFloat, PositiveFloat, PositiveInt
from tune.spec.split import Role

_PROBE_REQUEST_FILE, _CAPACITY_FILE = "probe_request.json", "capacity.json"
EARLY_STOP_FILE = "early_stop.json"


class ProbeRequest(FrozenModel):
    """Hold the request of one probe of a capacity search; `queries` is None for the run of full length.

    `stopped` says that the probe ended when it could no longer hold its SLO; its record ends where that was
    certain.
    """

    target_qps: PositiveFloat
    queries: PositiveInt | None
    stopped: bool


class EarlyStopThreshold(FrozenModel):
    """Hold the rate in queries/s below which an attempt stops early.

    `early_stop_qps` is the capacity of the best trial before the attempt. Where `expected` is True, it is the
    capacity that other configurations are expected to reach if this one reaches no more.
    """

    early_stop_qps: PositiveFloat
    expected: bool = False


class ForecastPoint(FrozenModel):
    """Hold what the forecast expects of full runs at one rate in queries/s.

    `used` holds by the name of each limit which share of it the figure uses: the lowest, the median and the
    highest over `shuffles` simulated shuffles.
    """

    target_qps: PositiveFloat
    shuffles: PositiveInt
    used: dict[str, tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat]]


class CapacityRecord(FrozenModel):
    """Hold the result of a capacity search; rates in queries/s.

    `verified_qps` is the highest rate that held in a run of full length, `missed_qps` the lowest above it
    that missed, `capacity_qps` the estimate of the highest rate that holds. `prefill_capacity_qps` and
    `decode_capacity_qps` are the pool capacities: what each pool sustains when the other never limits it.
    `fitted` holds the parameters that the forecast fitted to the probes, by their names in the calibration.
    `stopped_early`: the capacity is clearly below the rate to beat. `forecast` holds what the fitted forecast
    expects at the rates that it looked at, in their order.
    """

    verified_qps: PositiveFloat | None
    missed_qps: PositiveFloat | None
    capacity_qps: NonNegativeFloat
    prefill_capacity_qps: NonNegativeFloat | None = None
    decode_capacity_qps: NonNegativeFloat | None = None
    fitted: dict[str, float]
    stopped_early: bool = False
    forecast: tuple[ForecastPoint, ...] = ()

    @property
    def pool_capacity_qps(self) -> dict[Role, float]:
        """Return the pool capacities by role; empty where not both are known."""
        prefill, decode = self.prefill_capacity_qps, self.decode_capacity_qps
        return {"prefill": prefill, "decode": decode} if prefill and decode else {}


def write_probe_request(probe: Path, record: ProbeRequest) -> None:
    """Write probe_request.json into the folder `probe`; raise ConfigurationError where that fails."""
    write_text(probe / _PROBE_REQUEST_FILE, record.model_dump_json() + "\n")


def read_probe_request(probe: Path) -> ProbeRequest | None:
    """Read the request of the probe in `probe`; None without a file. Raises ResumableError if it is torn."""
    return read_record(probe / _PROBE_REQUEST_FILE, ProbeRequest)


def write_capacity(attempt: Path, record: CapacityRecord) -> None:
    """Write capacity.json into the folder `attempt`; raise ConfigurationError where that fails."""
    write_text(attempt / _CAPACITY_FILE, record.model_dump_json(indent=1) + "\n")


def read_capacity(attempt: Path) -> CapacityRecord | None:
    """Return the result of the search, None where there was none; raise ResumableError for a torn file."""
    return read_record(attempt / _CAPACITY_FILE, CapacityRecord)


def write_early_stop(attempt: Path, record: EarlyStopThreshold) -> None:
    """Write early_stop.json into the folder `attempt`; raise ConfigurationError where that fails."""
    write_text(attempt / EARLY_STOP_FILE, record.model_dump_json() + "\n")


def read_early_stop(attempt: Path) -> EarlyStopThreshold | None:
    """Return the rate to beat, None where there is none; raise ResumableError for a torn file."""
    return read_record(attempt / EARLY_STOP_FILE, EarlyStopThreshold)
