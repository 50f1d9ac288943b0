"""The samplers that `search=` names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from itertools import islice, product
from typing import Any

import optuna

from tune.errors import ConfigurationError
from tune.spec.bind import Point
from tune.spec.space import Dimension, FloatDimension, IntDimension, Search

_SEED_STRIDE = 1_000_003


def make_sampler(search: Search, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`, seeded by the study's seed and that number.

    TPE: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; multivariate as Falkner
    et al., BOHB, ICML 2018. Raises ConfigurationError when `gp` is asked for and torch is not installed.
    """
    mixed = (seed * _SEED_STRIDE + number) % 2**32
    match search.name:
        case "tpe":
            return optuna.samplers.TPESampler(
                seed=mixed, n_startup_trials=search.startup_trials, multivariate=True, constant_liar=True
            )
        case "gp":
            if find_spec("torch") is None:
                raise ConfigurationError(
                    "search=gp needs torch, which is not installed: install tune with its extra 'gp', or "
                    "choose search=tpe."
                )
            return optuna.samplers.GPSampler(seed=mixed, n_startup_trials=search.startup_trials)
        case _:
            return optuna.samplers.RandomSampler(seed=mixed)


def grid_point(space: Mapping[str, Dimension], position: int) -> Point | None:
    """The point at `position` of the full grid, last dimension fastest; None past its end."""
    axes = [axis(name, dimension, "grid") for name, dimension in space.items()]
    values = next(islice(product(*axes), position, None), None)
    return None if values is None else dict(zip(space, values, strict=True))


def axis(name: str, dimension: Dimension, search: str) -> list[Any]:
    """Every value of a dimension, in order. Raises ConfigurationError where `search` cannot walk it."""
    match dimension:
        case IntDimension():
            return list(range(dimension.low, dimension.high + 1, dimension.step))
        case FloatDimension():
            if dimension.step is None:
                raise ConfigurationError(
                    f"sweep.space.{name}: found a continuous range; search={search} expected a step "
                    f"(+sweep.space.{name}.step=0.5), or choose search=tpe."
                )
            count = int((dimension.high - dimension.low) / dimension.step + 1e-9)
            return [round(dimension.low + k * dimension.step, 12) for k in range(count + 1)]
        case _:
            return list(dimension.values)
