"""What searches: propose a configuration by its index, hear what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import optuna

from hidden.space import AXES, INDEX, SEED, neighbours
from hidden.truth import path_of, read


@dataclass(frozen=True)
class Told:
    """`broken`: a rule; nothing was deployed. `qps`: the measured boundary, 0 where nothing ran."""

    status: Literal["measured", "crashed", "broken"]
    qps: float = 0.0


class Method(Protocol):
    def propose(self, number: int) -> int | None:
        """Index of the configuration to try as `number`; None where the point breaks a rule."""

    def tell(self, number: int, index: int | None, told: Told) -> None:
        """What `number` came to."""


class Listed:
    """Configurations in an order that is known before."""

    def __init__(self, order: list[int]) -> None:
        self._order = order

    def propose(self, number: int) -> int | None:
        return self._order[number % len(self._order)]

    def tell(self, number: int, index: int | None, told: Told) -> None:
        pass


class Local:
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


class Sampled:
    """One of Optuna's samplers over AXES. What crashes or breaks a rule misses a constraint."""

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def propose(self, number: int) -> int | None:
        self._trial = self._study.ask()
        at = [self._trial.suggest_int(name, 0, len(values) - 1) for name, (_, values) in AXES.items()]
        return INDEX.get(tuple(values[i] for i, (_, values) in zip(at, AXES.values(), strict=True)))

    def tell(self, number: int, index: int | None, told: Told) -> None:
        self._trial.set_constraint("runs", -1.0 if told.status == "measured" else 1.0)
        self._study.tell(self._trial, told.qps)


def _random(seed: int) -> Method:
    return Listed(np.random.default_rng(seed).permutation(len(INDEX)).tolist())


def _prior(seed: int) -> Method:
    """By the boundaries that the default calibration has, highest first."""
    known = [qps or 0.0 for qps in read(path_of("prior", 0))]
    return Listed(sorted(range(len(known)), key=lambda index: -known[index]))


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
}
"""All but `prior` are seeded. With capacity search: each deployment tells a boundary."""
