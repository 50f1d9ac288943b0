"""What searches: propose a configuration by its index, hear what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal, Protocol

import numpy as np
import optuna

from hidden.space import AXES, BASE, CONFIGURATIONS, FEATURES, INDEX, MATTERS, PRIOR, SEED, neighbours
from hidden.truth import path_of, read
from tune.capacity.simulator_forecast import LOWEST_FRAC
from tune.surrogate.acquisition import feasibility_probability
from tune.surrogate.gaussian_process import gp_expected_improvement
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer


@dataclass(frozen=True)
class Told:
    """`broken`: a rule; nothing was deployed. `below`: no rate that a search looks at was held. `qps`: the
    measured boundary, of one that was given up the `forecast` one, else 0. `prefill_capacity_qps`, `decode_capacity_qps`: what
    each pool could do alone."""

    status: Literal["measured", "forecast", "below", "crashed", "broken"]
    qps: float = 0.0
    prefill_capacity_qps: float | None = None
    decode_capacity_qps: float | None = None


class Method(Protocol):
    """What asks each deployment for its boundary."""

    beats: bool
    """Whether a deployment that clearly cannot beat the best is given up, as search.early_stop has it."""
    early_stop_below_qps: float
    """If the one proposed comes to less, another is expected to do better; 0 where that is never so."""
    gain_frac: float | None
    """By which share the one proposed is expected to raise the best rate, None where nothing says."""

    def propose(self, number: int) -> int | None:
        """Index of the configuration to try as `number`; None where the point breaks a rule."""

    def tell(self, number: int, index: int | None, told: Told) -> None:
        """What `number` came to."""

    def best(self, known: Mapping[int, Told], count: int) -> list[int]:
        """Indices of the configurations that are thought best of those measured, the best one first."""


class HighestMeasured:
    beats, early_stop_below_qps, gain_frac = True, 0.0, None

    def best(self, known: Mapping[int, Told], count: int) -> list[int]:
        return sorted(measured(known), key=lambda index: -known[index].qps)[:count]


def measured(known: Mapping[int, Told]) -> list[int]:
    return [index for index, told in known.items() if told.status == "measured"]


class Listed(HighestMeasured):
    """Configurations in an order that is known before."""

    def __init__(self, order: list[int], beats: bool) -> None:
        self._order, self.beats = order, beats

    def propose(self, number: int) -> int | None:
        return self._order[number % len(self._order)]

    def tell(self, number: int, index: int | None, told: Told) -> None:
        pass


class Local(HighestMeasured):
    """The untried neighbours of the best so far, from the seed's configuration on; then those of the next."""

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self._seen: dict[int, float] = {}

    def propose(self, number: int) -> int | None:
        if SEED not in self._seen:
            return SEED
        for index in sorted(self._seen, key=lambda one: -self._seen[one]):
            free = [other for other in neighbours(index) if other not in self._seen]
            if free:
                return free[int(self._draws.integers(len(free)))]
        return SEED

    def tell(self, number: int, index: int | None, told: Told) -> None:
        if index is not None:
            self._seen[index] = told.qps


class Sampled(HighestMeasured):
    """One of Optuna's samplers over AXES. What crashes or breaks a rule misses a constraint."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        seed = zip(AXES.items(), CONFIGURATIONS[SEED].values, strict=True)
        self._study.enqueue_trial({name: values.index(value) for (name, (_, values)), value in seed})

    def propose(self, number: int) -> int | None:
        self._trial = self._study.ask()
        at = [self._trial.suggest_int(name, 0, len(values) - 1) for name, (_, values) in AXES.items()]
        return INDEX.get(tuple(values[i] for i, (_, values) in zip(at, AXES.values(), strict=True)))

    def tell(self, number: int, index: int | None, told: Told) -> None:
        self._trial.set_constraint("runs", -1.0 if told.status in {"measured", "forecast"} else 1.0)
        self._study.tell(self._trial, told.qps)


class RateSampled:
    """TPE over AXES and the rate of the one run that each deployment is asked, between RATES_QPS.

    It is not among METHODS: what it is told is no boundary, but whether its rate held.
    """

    RATES_QPS = (4.0, 32.0)

    def __init__(self, seed: int) -> None:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, multivariate=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def propose(self) -> tuple[int | None, float]:
        self._trial = self._study.ask()
        at = [self._trial.suggest_int(name, 0, len(values) - 1) for name, (_, values) in AXES.items()]
        index = INDEX.get(tuple(values[i] for i, (_, values) in zip(at, AXES.values(), strict=True)))
        return index, self._trial.suggest_float("target_qps", *self.RATES_QPS)

    def tell(self, qps: float, capacity_qps: float | None) -> None:
        """`capacity_qps`: None where nothing ran, else of the deployment."""
        missed = 1.0 if capacity_qps is None else float(np.log(qps / max(capacity_qps, 0.01)))
        self._trial.set_constraint("holds", missed)
        self._study.tell(self._trial, 0.0 if capacity_qps is None else qps)


class GaussianProcess(HighestMeasured):
    """Expected improvement under a Gaussian process on ln of the boundary (tune/surrogate/gaussian_process.py)."""

    def __init__(self, seed: int) -> None:
        self._draws = np.random.default_rng(seed)
        self._seen: dict[int, Told] = {}

    def tell(self, number: int, index: int | None, told: Told) -> None:
        if index is not None:
            self._seen[index] = told

    def propose(self, number: int) -> int | None:
        free = np.setdiff1d(np.arange(len(FEATURES)), list(self._seen))
        known = {index: told.qps for index, told in self._seen.items() if told.status != "crashed"}
        if number < 5 or len(known) < 3:
            return SEED if number == 0 else int(self._draws.choice(free))
        ln_qps = np.log(np.maximum(list(known.values()), 0.05))
        gain = gp_expected_improvement(FEATURES, np.array(list(known)), ln_qps, self._best_qps())
        tried = np.array(list(self._seen))
        crashed = np.array([told.status == "crashed" for told in self._seen.values()])
        return int(free[(gain * feasibility_probability(FEATURES, tried, crashed))[free].argmax()])

    def _best_qps(self) -> float:
        return max((told.qps for told in self._seen.values() if told.status == "measured"), default=0.05)


class Calibrated:
    """The search of search=surrogate; without `structural` hypotheses it varies figures alone."""

    beats = True

    def __init__(self, seed: int, structural: bool = True) -> None:
        self._search = replace_seed(searches(structural), seed)
        self._seen: list[Observation] = []

    def propose(self, number: int) -> int | None:
        proposed = self._search.suggest(self._seen) if self._seen else None
        self.early_stop_below_qps = proposed.early_stop_below_qps if proposed else 0.0
        self.gain_frac = proposed.expected_improvement_frac if proposed else None
        return proposed.index if proposed else SEED

    def tell(self, number: int, index: int | None, told: Told) -> None:
        assert index is not None
        assert told.status != "broken"
        alone = told.prefill_capacity_qps, told.decode_capacity_qps
        qps = LOWEST_FRAC * BASE.load.target_qps if told.status == "below" else told.qps
        self._seen.append(Observation(index, told.status, qps, *alone))
        self._view = self._search.predict(self._seen)

    def best(self, known: Mapping[int, Told], count: int) -> list[int]:
        expected = self._view.expected_capacity_qps
        return sorted(measured(known), key=lambda index: -expected[index])[:count]


@cache
def searches(structural: bool) -> SurrogateOptimizer:
    """What is simulated before a search is the same for all of them."""
    return SurrogateOptimizer([one.spec for one in CONFIGURATIONS], FEATURES, MATTERS, PRIOR, 0, structural)


def replace_seed(search: SurrogateOptimizer, seed: int) -> SurrogateOptimizer:
    found = copy(search)
    found.reseed(seed)
    return found


def _random(seed: int) -> Method:
    order = np.random.default_rng(seed).permutation(len(INDEX)).tolist()
    order.remove(SEED)
    return Listed([SEED, *order], beats=False)


def _prior(seed: int) -> Method:
    """By the boundaries that the default calibration has, highest first."""
    known = [qps or 0.0 for qps in read(path_of("prior", 0))]
    return Listed(sorted(range(len(known)), key=lambda index: -known[index]), beats=True)


def _tpe(seed: int) -> Method:
    return Sampled(optuna.samplers.TPESampler(seed=seed, n_startup_trials=10, multivariate=True))


def _nsga2(seed: int) -> Method:
    return Sampled(optuna.samplers.NSGAIISampler(seed=seed, population_size=12))


METHODS: Mapping[str, Callable[[int], Method]] = {
    "random": _random,
    "prior": _prior,
    "local": Local,
    "tpe": _tpe,
    "nsga2": _nsga2,
    "gp": GaussianProcess,
    "surrogate": Calibrated,
    "surrogate-figures": partial(Calibrated, structural=False),
}
"""With capacity search: each deployment tells a boundary. As in studies all but `random` give up what cannot
beat the best, and all but `prior`, which is not seeded either, begin with the seed's configuration."""
