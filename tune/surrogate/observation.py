"""Hold observed capacities of deployments, and turn them into log pool capacities with limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tune.surrogate.discrepancy import (
    CENSORED_SD,
    CENSORING_RATIO,
    EXCESS_SD_FRAC,
    FORECAST_SD,
    Observations,
)
from tune.surrogate.emulator import log_capacity

STATUS_SD = {"measured": 0.0, "forecast": FORECAST_SD, "above": CENSORED_SD, "below": CENSORED_SD}
"""Standard deviation of what adds to the noise of a measured log capacity, by the status of an
observation."""


@dataclass(frozen=True)
class Observation:
    """Hold the observed capacity of a deployment of configuration `index`.

    Status and meaning of `qps`:

    - "measured": the capacity.
    - "forecast": a forecast of the capacity, of a deployment that was stopped early.
    - "above": a lower limit of the capacity (right-censored): the SLO held at this rate.
    - "below": an upper limit of the capacity (left-censored): the SLO was violated at this rate.
    - "invalid": the rate of an invalid measurement, which says nothing about the capacity.
    - "crashed": not used; the configuration cannot run.
    - "pending": the rate that a running deployment is measured at, 0 if its capacity is searched for.

    `prefill_capacity_qps` and `decode_capacity_qps` are the pool capacities, known only where the status is
    "measured" or "forecast".
    """

    index: int
    status: Literal["measured", "forecast", "above", "below", "invalid", "crashed", "pending"]
    qps: float = 0.0
    prefill_capacity_qps: float | None = None
    decode_capacity_qps: float | None = None


def verified_qps(observations: Sequence[Observation]) -> float:
    """Return the highest rate at which the SLO held, queries/s; 0 if there is none."""
    return max((item.qps for item in observations if item.status == "above"), default=0.0)


def pool_observations(observations: Sequence[Observation]) -> Observations:
    """Return the observed log pool capacities, without invalid, crashed and pending observations.

    Known pool capacities are shifted by one offset so that their soft minimum equals the measured capacity.
    One above CENSORING_RATIO times the capacity is right-censored there.
    """
    known = [item for item in observations if item.status in STATUS_SD]
    log_qps = np.log([max(item.qps, 1e-3) for item in known]) if known else np.zeros(0)
    status = np.array([item.status for item in known], object)
    has_pools = np.array(
        [bool(item.prefill_capacity_qps and item.decode_capacity_qps) for item in known], bool
    )
    pools = [
        [item.prefill_capacity_qps, item.decode_capacity_qps]
        for item in known
        if item.prefill_capacity_qps and item.decode_capacity_qps
    ]
    log_pools = np.log(pools).reshape(-1, 2).T
    observed = np.stack([log_qps, log_qps])
    observed[:, has_pools] += log_pools - log_capacity(log_pools)
    censored = log_qps + np.log(CENSORING_RATIO)
    sd = np.array([STATUS_SD[item.status] for item in known])
    return Observations(
        indices=np.array([item.index for item in known], int),
        low=np.where(status == "below", -np.inf, np.minimum(observed, censored)),
        high=np.where((status == "above") | (observed > censored), np.inf, observed),
        sd=np.hypot(sd, EXCESS_SD_FRAC * np.clip(observed - log_qps, 0, np.log(CENSORING_RATIO))),
        capacity_only=~has_pools,
    )
