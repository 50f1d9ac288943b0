"""Which racks remain probable after what was measured: importance sampling that moves towards them.

Source: population Monte Carlo, Cappé, Guillin, Marin and Robert, J. Comput. Graph. Stat. 13, 2004; weights
are tempered so that their effective number (Kong 1992) never falls below a share of the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tune.belief.discrepancy import UNTOLD_SD, Discrepancy, Measured
from tune.belief.emulator import Emulator
from tune.belief.racks import Racks, RackSpace
from tune.results.requests import FloatArray

FIRST_DRAWS, LATER_DRAWS, MOVES, TEMPERED = 4000, 800, 2, 12
LEAST_EFFECTIVE_FRAC = 0.05
"""Our choice, as are the numbers of draws, moves and halvings of the power: what an ask may cost."""

MOST_FIRST, MOST_LATER = 120_000, 40_000
"""Draws times measurements: of many measurements fewer racks are compared."""

FROM_BEFORE = 0.2
"""Share of the later draws that comes from what was thought before, lest a narrow belief miss another."""

WIDER = 1.2
KEPT = 192


@dataclass(frozen=True, eq=False)
class Weighed:
    racks: Racks
    weight: FloatArray


class Posterior:
    """Racks of `space`; the first draws are the same at every ask, so what is known of them is kept."""

    def __init__(
        self, space: RackSpace, emulator: Emulator, of_pool: Sequence[FloatArray], seed: int
    ) -> None:
        """`of_pool`: settings of all configurations that matter to prefill, and to decode, (m, settings)."""
        self._space, self._emulator, self._of_pool = space, emulator, of_pool
        self.before = space.draw(FIRST_DRAWS, np.random.default_rng([seed, 0]))
        self._columns: dict[int, FloatArray] = {}

    def probable(self, measured: Measured, seed: int) -> Racks:
        """KEPT racks, equally probable, after what was `measured`."""
        draws = np.random.default_rng([seed, len(measured), 1])
        if not len(measured):
            return self.before[np.arange(KEPT)]
        first = self.before[np.arange(min(FIRST_DRAWS, MOST_FIRST // len(measured)))]
        residual = measured.residual(self._ln_bounds_before(measured, len(first)))
        sd = np.where(measured.tells(residual), measured.sd, UNTOLD_SD)
        pools = [Discrepancy(at, measured.which, of) for at, of in zip(self._of_pool, sd, strict=True)]
        weighed = _tempered(first, _ln_likelihood(pools, residual))
        for _ in range(MOVES):
            weighed = self._moved(weighed, measured, pools, draws)
        return _resampled(weighed, draws)

    def _ln_bounds_before(self, measured: Measured, count: int) -> FloatArray:
        """Of the first `count` racks: (2, count, n)."""
        new = np.array([at for at in dict.fromkeys(measured.which.tolist()) if at not in self._columns], int)
        if len(new):
            found = self._emulator.ln_bounds(self.before, new)
            self._columns |= {at: found[..., column] for column, at in enumerate(new.tolist())}
        return np.stack([self._columns[at][:, :count] for at in measured.which.tolist()], -1)

    def _moved(
        self,
        weighed: Weighed,
        measured: Measured,
        pools: Sequence[Discrepancy],
        draws: np.random.Generator,
    ) -> Weighed:
        """Draws near `weighed`, weighed by what they explain and by how they were drawn."""
        near = _Near(self._space, weighed)
        racks = near.draw(min(LATER_DRAWS, MOST_LATER // len(measured)), draws)
        residual = measured.residual(self._emulator.ln_bounds(racks, measured.which))
        return _tempered(racks, _ln_likelihood(pools, residual), near.ln_before_over_drawn(racks))


class _Near:
    """A normal distribution over the figures and frequencies of the hypotheses, as `weighed` has them."""

    def __init__(self, space: RackSpace, weighed: Weighed) -> None:
        self._space = space
        weight = weighed.weight
        self._mean = weight @ weighed.racks.normal
        off = weighed.racks.normal - self._mean
        covariance = (off * weight[:, None]).T @ off
        self._lower = np.linalg.cholesky(WIDER**2 * covariance + 0.01 * np.eye(len(self._mean)))
        self._chance = [
            (1 - FROM_BEFORE) * np.bincount(weighed.racks.choice[:, at], weight, len(one.values))
            + FROM_BEFORE * np.array(one.probability)
            for at, one in enumerate(space.alternatives)
        ]

    def draw(self, count: int, draws: np.random.Generator) -> Racks:
        old = round(FROM_BEFORE * count)
        before = self._space.draw(old, draws).normal
        near = self._mean + draws.normal(size=(count - old, len(self._mean))) @ self._lower.T
        chosen = [draws.choice(len(chance), count, p=chance / chance.sum()) for chance in self._chance]
        return Racks(np.concatenate([before, near]), np.stack(chosen, 1))

    def ln_before_over_drawn(self, racks: Racks) -> FloatArray:
        """ln of how much more probable each rack was before than it is to be drawn here, (racks,)."""
        ln_before = -0.5 * (racks.normal**2).sum(1)
        white = np.linalg.solve(self._lower, (racks.normal - self._mean).T)
        ln_near = -0.5 * (white**2).sum(0) - np.log(np.diag(self._lower)).sum()
        ln_drawn = np.logaddexp(np.log(FROM_BEFORE) + ln_before, np.log(1 - FROM_BEFORE) + ln_near)
        ratio = ln_before - ln_drawn
        for at, one in enumerate(self._space.alternatives):
            chosen = racks.choice[:, at]
            ratio += np.log(np.array(one.probability)[chosen] / self._chance[at][chosen])
        found: FloatArray = ratio
        return found


def _ln_likelihood(pools: Sequence[Discrepancy], residual: FloatArray) -> FloatArray:
    """Of each rack, (racks,); `residual` (2, racks, n)."""
    one, other = (pool.ln_likelihood(off) for pool, off in zip(pools, residual, strict=True))
    found: FloatArray = one + other
    return found


def _tempered(racks: Racks, ln_likelihood: FloatArray, ln_ratio: FloatArray | float = 0.0) -> Weighed:
    """Weights that sum to 1, of likelihood to the highest power up to 1 that leaves enough of them."""
    least, low, high = LEAST_EFFECTIVE_FRAC * len(racks), 0.0, 1.0
    weight = _normalised(ln_likelihood + ln_ratio)
    if 1 / (weight**2).sum() < least:
        for _ in range(TEMPERED):
            middle = (low + high) / 2
            weight = _normalised(middle * ln_likelihood + ln_ratio)
            low, high = (middle, high) if 1 / (weight**2).sum() >= least else (low, middle)
        weight = _normalised(low * ln_likelihood + ln_ratio)
    return Weighed(racks, weight)


def _normalised(ln_weight: FloatArray) -> FloatArray:
    weight: FloatArray = np.exp(ln_weight - ln_weight.max())
    weight /= weight.sum()
    return weight


def _resampled(weighed: Weighed, draws: np.random.Generator) -> Racks:
    """KEPT racks by systematic resampling. Source: Kitagawa, J. Comput. Graph. Stat. 5, 1996."""
    points = (np.arange(KEPT) + draws.uniform()) / KEPT
    which = np.searchsorted(np.cumsum(weighed.weight), points).clip(max=len(weighed.racks) - 1)
    return weighed.racks[which]
