"""Observe configurations on hardware whose parameters the surrogate does not know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tune.surrogate.emulator import log_capacity
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.prior import ParameterSamples

SLOW = 1.3
SLOW_PREFILL = {"prefill_scale": SLOW}


def hidden_parameters(search: SurrogateOptimizer, factors: Mapping[str, float]) -> ParameterSamples:
    """Return parameters that differ by `factors` from the calibration."""
    normal = np.zeros((1, len(search.prior.names)))
    for name, factor in factors.items():
        normal[0, search.prior.names.index(name)] = np.log(factor) / search.prior.log_sd[name]
    return ParameterSamples(normal, np.zeros((1, len(search.prior.hypotheses)), int))


def true_capacities_qps(search: SurrogateOptimizer) -> list[float]:
    """Return the capacity of every configuration where prefill is slow."""
    return [observation.qps for observation in measure_all(search)]


def measure_all(search: SurrogateOptimizer, factors: Mapping[str, float] = SLOW_PREFILL) -> list[Observation]:
    """Return the measured capacity of every configuration, with its pool capacities."""
    samples, indices = hidden_parameters(search, factors), np.arange(len(search.specs))
    log_pools = search.emulator.log_pool_capacity(samples, indices)[:, 0]
    pools, capacities = np.exp(log_pools).T.tolist(), np.exp(log_capacity(log_pools)).tolist()
    return [Observation(index, "measured", qps, *pools[index]) for index, qps in enumerate(capacities)]


def observe(search: SurrogateOptimizer, deployments: int) -> list[Observation]:
    """Follow the suggestions for a number of deployments."""
    truth = measure_all(search)
    observations = [truth[0]]
    while len(observations) < deployments:
        suggestion = search.suggest(observations)
        assert suggestion
        observations.append(truth[suggestion.index])
    return observations
