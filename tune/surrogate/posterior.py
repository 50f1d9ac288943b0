"""Which racks remain probable after what was measured: importance sampling around those that explain most.

Weights are tempered so that their effective number (Kong 1992) never falls below a share of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.core.arrays import BoolArray, FloatArray
from tune.surrogate.discrepancy import UNINFORMATIVE_SD, Discrepancy, Observations
from tune.surrogate.emulator import Emulator
from tune.surrogate.laplace import LaplaceMixture
from tune.surrogate.prior import ParameterPrior, ParameterSamples

FIRST_DRAWS, STARTS, LATER_DRAWS, TEMPERED = 4000, 32, 800, 12
LEAST_EFFECTIVE_FRAC = 0.05
"""Our choice, as are the numbers of draws, starts and halvings of the power: what an ask may cost."""

MOST_FIRST, MOST_STARTS, MOST_LATER = 80_000, 800, 20_000
"""Draws times measurements: of many measurements fewer racks are compared."""

POSTERIOR_SAMPLES = 192


@dataclass(frozen=True, eq=False)
class WeightedSamples:
    racks: ParameterSamples
    weight: FloatArray


class Posterior:
    """Racks of `space`; the first draws are the same at every ask, so what is known of them is kept."""

    def __init__(
        self, space: ParameterPrior, emulator: Emulator, of_pool: Sequence[FloatArray], seed: int
    ) -> None:
        """`of_pool`: settings of all configurations that matter to prefill, and to decode, (m, settings)."""
        self._space, self._emulator, self._of_pool = space, emulator, of_pool
        self.before = space.draw(FIRST_DRAWS, np.random.default_rng([seed, 0]))
        self._columns: dict[int, FloatArray] = {}

    def probable(self, measured: Observations, seed: int) -> ParameterSamples:
        """KEPT racks, equally probable, after what was `measured`."""
        draws, count = np.random.default_rng([seed, len(measured), 1]), len(measured)
        if not count:
            return self.before[np.arange(POSTERIOR_SAMPLES)]
        first = self.before[np.arange(min(FIRST_DRAWS, MOST_FIRST // count))]
        residual = measured.residual(self._ln_bounds_before(measured, len(first)))
        sd = np.where(measured.tells(residual), measured.sd, UNINFORMATIVE_SD)
        pools = [Discrepancy(at, measured.which, of) for at, of in zip(self._of_pool, sd, strict=True)]
        weighed = _tempered(first, _ln_likelihood(_whitened(pools, residual)))
        starts = _resampled(weighed, max(min(STARTS, MOST_STARTS // count), 1), draws)
        told = _Told(measured, pools, self._emulator)
        modes = LaplaceMixture(self._space, starts, told)
        racks = modes.draw(min(LATER_DRAWS, MOST_LATER // count), draws)
        ln_likelihood = _ln_likelihood(told.whitened(told.residual(racks)))
        ln_weight = ln_likelihood + modes.log_importance_weight(racks)
        return _resampled(_tempered(racks, ln_weight), POSTERIOR_SAMPLES, draws)

    def _ln_bounds_before(self, measured: Observations, count: int) -> FloatArray:
        """Of the first `count` racks: (2, count, n)."""
        new = np.array([at for at in dict.fromkeys(measured.which.tolist()) if at not in self._columns], int)
        if len(new):
            found = self._emulator.log_pool_capacity(self.before, new)
            self._columns |= {at: found[..., column] for column, at in enumerate(new.tolist())}
        return np.stack([self._columns[at][:, :count] for at in measured.which.tolist()], -1)


@dataclass(frozen=True, eq=False)
class _Told:
    """What was `measured`, with the errors of both `pools`, as the `emulator` sees it."""

    measured: Observations
    pools: Sequence[Discrepancy]
    emulator: Emulator

    @property
    def touched(self) -> BoolArray:
        touched = self.emulator.touched[..., self.measured.which]
        found: BoolArray = touched | (touched.any(1, keepdims=True) & self.measured.lowest)
        return found

    def residual(self, racks: ParameterSamples) -> FloatArray:
        return self.measured.residual(self.emulator.log_pool_capacity(racks, self.measured.which))

    def whitened(self, residual: FloatArray) -> FloatArray:
        return _whitened(self.pools, residual)


def _whitened(pools: Sequence[Discrepancy], residual: FloatArray) -> FloatArray:
    """Of both pools beside each other, (racks, 2n); `residual` (2, racks, n)."""
    return np.concatenate([pool.whitened(off) for pool, off in zip(pools, residual, strict=True)], 1)


def _ln_likelihood(off: FloatArray) -> FloatArray:
    """Of each rack, (racks,), but for a constant."""
    found: FloatArray = -0.5 * (off**2).sum(1)
    return found


def _tempered(racks: ParameterSamples, ln_weight: FloatArray) -> WeightedSamples:
    """Weights that sum to 1, to the highest power up to 1 that leaves enough of them."""
    least, low, high = LEAST_EFFECTIVE_FRAC * len(racks), 0.0, 1.0
    weight = _normalised(ln_weight)
    if 1 / (weight**2).sum() < least:
        for _ in range(TEMPERED):
            middle = (low + high) / 2
            weight = _normalised(middle * ln_weight)
            low, high = (middle, high) if 1 / (weight**2).sum() >= least else (low, middle)
        weight = _normalised(low * ln_weight)
    return WeightedSamples(racks, weight)


def _normalised(ln_weight: FloatArray) -> FloatArray:
    weight: FloatArray = np.exp(ln_weight - ln_weight.max())
    weight /= weight.sum()
    return weight


def _resampled(weighed: WeightedSamples, count: int, draws: np.random.Generator) -> ParameterSamples:
    """`count` racks by systematic resampling. Source: Kitagawa, J. Comput. Graph. Stat. 5, 1996."""
    points = (np.arange(count) + draws.uniform()) / count
    which = np.searchsorted(np.cumsum(weighed.weight), points).clip(max=len(weighed.racks) - 1)
    return weighed.racks[which]
