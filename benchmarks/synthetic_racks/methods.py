"""Search for the best configuration: suggest one by its index, observe its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal, Protocol

import numpy as np
import optuna

from synthetic_racks.capacity_tables import read_prior
from synthetic_racks.space import (
    AXES,
    BASE,
    CONFIGURATIONS,
    FEATURES,
    INDEX,
    MATTERS,
    PRIOR,
    SEED,
    neighbours,
)
from tune.capacity.simulator_forecast import MIN_RATE_FRAC
from tune.records.posterior_summary import Interval
from tune.surrogate.acquisition import feasibility_probability
from tune.surrogate.credible_interval import expected_capacity_qps
from tune.surrogate.gaussian_process import gp_expected_improvement
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer


@dataclass(frozen=True)
class Result:
    """Hold what a deployment shows.

    status: "measured"; "forecast" if it was stopped early; "below" if it holds no rate that a search tries;
    "crashed"; "refused" if the configuration breaks a rule, so that nothing was deployed.
    qps: the measured or forecast capacity, else 0; the others are the capacities of the pools.
    """

    status: Literal["measured", "forecast", "below", "crashed", "refused"]
    qps: float = 0.0
    prefill_capacity_qps: float | None = None
    decode_capacity_qps: float | None = None


class Method(Protocol):
    """Describe a search that learns the capacity of each deployment."""

    stops_early: bool
    """Whether a deployment that clearly cannot beat the best is stopped, as with search.early_stop."""
    early_stop_below_qps: float
    """Capacity of the suggestion below which another configuration is expected to be better; 0: never."""
    gain_frac: float | None
    """Fraction by which the suggestion is expected to raise the best capacity; None if not predicted."""
    interval: Interval | None
    """90 % interval of the capacity that a measurement of the suggestion shows; None if not predicted."""

    def suggest(self, number: int) -> int | None:
        """Return the index of the configuration to try as `number`; None where the point breaks a rule."""

    def observe(self, number: int, index: int | None, result: Result) -> None:
        """Learn the result of `number`."""

    def best(self, known: Mapping[int, Result], count: int) -> list[int]:
        """Return the indices of the measured configurations that are estimated as best, the best first."""


class HighestMeasured:
    """Rank configurations by their measured capacity."""

    stops_early, early_stop_below_qps, gain_frac, interval = True, 0.0, None, None

    def best(self, known: Mapping[int, Result], count: int) -> list[int]:
        """Return the measured configurations of the highest capacities."""
        return sorted(measured(known), key=lambda index: -known[index].qps)[:count]


def measured(known: Mapping[int, Result]) -> list[int]:
    """Return the indices of the configurations that were measured."""
    return [index for index, result in known.items() if result.status == "measured"]


class FixedOrder(HighestMeasured):
    """Suggest configurations in a given order."""

    def __init__(self, order: list[int], stops_early: bool) -> None:
        self._order, self.stops_early = order, stops_early

    def suggest(self, number: int) -> int | None:
        return self._order[number % len(self._order)]

    def observe(self, number: int, index: int | None, result: Result) -> None:
        pass


class LocalSearch(HighestMeasured):
    """Suggest untried neighbours of the best configuration so far, then of the second best, and so on.

    The first suggestion is the seed's configuration.
    """

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self._seen: dict[int, float] = {}

    def suggest(self, number: int) -> int | None:
        if SEED not in self._seen:
            return SEED
        for index in sorted(self._seen, key=lambda known: -self._seen[known]):
            free = [other for other in neighbours(index) if other not in self._seen]
            if free:
                return free[int(self._draws.integers(len(free)))]
        return SEED

    def observe(self, number: int, index: int | None, result: Result) -> None:
        if index is not None:
            self._seen[index] = result.qps


class OptunaSearch(HighestMeasured):
    """Suggest by a sampler of Optuna over AXES. A crash and a broken rule miss a constraint."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        seed = zip(AXES.items(), CONFIGURATIONS[SEED].values, strict=True)
        self._study.enqueue_trial({name: values.index(value) for (name, (_, values)), value in seed})

    def suggest(self, number: int) -> int | None:
        self._trial = self._study.ask()
        return suggest_index(self._trial)

    def observe(self, number: int, index: int | None, result: Result) -> None:
        self._trial.set_constraint("runs", -1.0 if result.status in {"measured", "forecast"} else 1.0)
        self._study.tell(self._trial, result.qps)


class RateSearch:
    """Suggest a configuration and the rate of its only run, within RATES_QPS, by TPE.

    It is not among METHODS: it observes whether its rate held, no capacity.
    """

    RATES_QPS = (4.0, 32.0)

    def __init__(self, seed: int) -> None:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, multivariate=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def suggest(self) -> tuple[int | None, float]:
        """Return the index of a configuration, None where it breaks a rule, and a rate."""
        self._trial = self._study.ask()
        index = suggest_index(self._trial)
        return index, self._trial.suggest_float("target_qps", *self.RATES_QPS)

    def observe(self, qps: float, capacity_qps: float | None) -> None:
        """Learn how far the rate is from the capacity of the deployment, None where nothing ran."""
        missed = 1.0 if capacity_qps is None else float(np.log(qps / max(capacity_qps, 0.01)))
        self._trial.set_constraint("holds", missed)
        self._study.tell(self._trial, 0.0 if capacity_qps is None else qps)


class GaussianProcess(HighestMeasured):
    """Suggest by expected improvement under a Gaussian process on the logarithm of the capacity."""

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self._seen: dict[int, Result] = {}

    def observe(self, number: int, index: int | None, result: Result) -> None:
        if index is not None:
            self._seen[index] = result

    def suggest(self, number: int) -> int | None:
        free = np.setdiff1d(np.arange(len(FEATURES)), list(self._seen))
        known = {index: result.qps for index, result in self._seen.items() if result.status != "crashed"}
        if number < 5 or len(known) < 3:
            return SEED if number == 0 else int(self._draws.choice(free))
        log_qps = np.log(np.maximum(list(known.values()), 0.05))
        gain = gp_expected_improvement(FEATURES, np.array(list(known)), log_qps, self._best_qps())
        tried = np.array(list(self._seen))
        crashed = np.array([result.status == "crashed" for result in self._seen.values()])
        return int(free[(gain * feasibility_probability(FEATURES, tried, crashed))[free].argmax()])

    def _best_qps(self) -> float:
        return max(
            (result.qps for result in self._seen.values() if result.status == "measured"), default=0.05
        )


class SurrogateSearch:
    """Suggest as search=surrogate does; without `structural` hypotheses only parameters vary.

    What was suggested runs until its result is observed.
    """

    stops_early = True

    def __init__(self, seed: int, structural: bool = True) -> None:
        shared = optimizers(structural)
        self._optimizer = replace(shared, seed=seed, simulated=shared.emulator)
        self._seen: list[Observation] = []
        self._running: list[int] = []

    def suggest(self, number: int) -> int | None:
        observations = [*self._seen, *(Observation(index, "pending") for index in self._running)]
        suggestion = self._optimizer.suggest(observations) if observations else None
        index = suggestion.index if suggestion else SEED
        self.early_stop_below_qps = suggestion.early_stop_below_qps if suggestion else 0.0
        self.gain_frac = suggestion.expected_improvement_frac if suggestion else None
        self.interval = expected_capacity_qps(
            suggestion.prediction if suggestion else self._optimizer.predict([]),
            index,
            self._optimizer.error_scale(observations),
        )
        self._running.append(index)
        return index

    def observe(self, number: int, index: int | None, result: Result) -> None:
        assert index is not None
        assert result.status != "refused"
        self._running.remove(index)
        pools = result.prefill_capacity_qps, result.decode_capacity_qps
        qps = MIN_RATE_FRAC * BASE.load.target_qps if result.status == "below" else result.qps
        self._seen.append(Observation(index, result.status, qps, *pools))

    def best(self, known: Mapping[int, Result], count: int) -> list[int]:
        expected = self._optimizer.predict(self._seen).expected_capacity_qps
        return sorted(measured(known), key=lambda index: -expected[index])[:count]


@cache
def optimizers(structural: bool) -> SurrogateOptimizer:
    """Return the optimizer whose emulator all searches share: they need one set of simulations."""
    return SurrogateOptimizer([each.spec for each in CONFIGURATIONS], FEATURES, MATTERS, PRIOR, 0, structural)


def suggest_index(trial: optuna.Trial) -> int | None:
    """Let a sampler choose from AXES; return the configuration's index, None where it breaks a rule."""
    positions = [trial.suggest_int(name, 0, len(values) - 1) for name, (_, values) in AXES.items()]
    return INDEX.get(tuple(values[i] for i, (_, values) in zip(positions, AXES.values(), strict=True)))


def _random(seed: int) -> Method:
    order = np.random.default_rng(seed).permutation(len(INDEX)).tolist()
    order.remove(SEED)
    return FixedOrder([SEED, *order], stops_early=False)


def _prior(seed: int) -> Method:
    """Return the order of the capacities that the default calibration predicts, highest first."""
    known = [qps or 0.0 for qps in read_prior()]
    return FixedOrder(sorted(range(len(known)), key=lambda index: -known[index]), stops_early=True)


def _tpe(seed: int) -> Method:
    return OptunaSearch(optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, multivariate=True))


def _nsga2(seed: int) -> Method:
    return OptunaSearch(optuna.samplers.NSGAIISampler(seed=seed, population_size=12))


METHODS: Mapping[str, Callable[[int], Method]] = {
    "random": _random,
    "prior": _prior,
    "local": LocalSearch,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": GaussianProcess,
    "surrogate": SurrogateSearch,
    "surrogate-figures": partial(SurrogateSearch, structural=False),
}
"""Methods with a search for the capacity of each deployment. All but `random` stop early, as studies do. All
but `prior` begin with the seed's configuration."""
