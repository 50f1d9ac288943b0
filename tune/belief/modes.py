"""Racks that explain best what was measured, and a density around them from which probable ones are drawn.

Each start climbs by itself (Levenberg and Marquardt: J. SIAM 11, 1963); around where it comes to lies a
normal as wide as the curvature there says. Source of a mixture of those to draw from: Raftery and Bao,
Biometrics 66, 2010.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tune.belief.racks import Racks, RackSpace
from tune.results.requests import FloatArray

CLIMBS, TRIES = 4, 2
"""Steps of each start, and with how much damping each is tried. Our choice: what an ask may cost."""

FIRST_DAMPING, DAMPING_FACTOR = 1.0, 5.0
FARTHEST_STEP = 2.0
"""In standard deviations of all figures together: the bounds are far from linear."""

SLOPE_STEP = 0.05
EVENLY = 0.3
"""Share of the draws that all modes get alike, lest one that was climbed badly be missed. Our choice."""

WIDER = 1.2

Off = Callable[[Racks], FloatArray]
"""By how much each rack is off, in independent standard deviations: (racks, what was measured)."""


class Modes:
    """Where `starts` climb to, where a rack's figures are as probable as `space` and `off` have them.

    Hypotheses stay those of the start.
    """

    def __init__(self, space: RackSpace, starts: Racks, off: Off) -> None:
        self._space = space
        self._at, curvature, ln_probable = _climbed(space, starts, off)
        self._lower = np.linalg.cholesky(curvature / WIDER**2)
        self._ln_density = np.log(np.diagonal(self._lower, axis1=1, axis2=2)).sum(1)
        mass = ln_probable - self._ln_density
        share = np.exp(mass - mass.max())
        self._share = (1 - EVENLY) * share / share.sum() + EVENLY / len(share)

    def draw(self, count: int, draws: np.random.Generator) -> Racks:
        of = draws.choice(len(self._at), count, p=self._share)
        white = draws.normal(size=(count, self._at.normal.shape[1]))
        spread = np.linalg.inv(self._lower)[of]
        return Racks(self._at.normal[of] + np.einsum("cba,cb->ca", spread, white), self._at.choice[of])

    def ln_before_over_drawn(self, racks: Racks) -> FloatArray:
        """ln of how much more probable each rack was before than it is to be drawn here, (racks,), but for a
        constant."""
        apart = racks.normal[:, None] - self._at.normal
        squares = (np.einsum("mba,cmb->cma", self._lower, apart) ** 2).sum(-1)
        ln_drawn = np.log(self._share) + self._ln_density - squares / 2
        same = (racks.choice[:, None] == self._at.choice).all(-1)
        found: FloatArray = self._space.ln_probability(racks) - np.logaddexp.reduce(
            np.where(same, ln_drawn, -np.inf), axis=1
        )
        return found


def _climbed(space: RackSpace, starts: Racks, off: Off) -> tuple[Racks, FloatArray, FloatArray]:
    """Where each of `starts` (m,) comes to, the curvature of ln of its probability there (m, figures,
    figures), and that, (m,)."""
    at, off_at = starts, off(starts)
    probable = _ln_probable(space, at, off_at)
    damping = np.full(len(at), FIRST_DAMPING)
    for _ in range(CLIMBS):
        curvature, ascent = _around(at, off_at, off)
        for _ in range(TRIES):
            eased = curvature * (1 + damping[:, None, None] * np.eye(curvature.shape[1]))
            step = np.linalg.solve(eased, ascent[..., None])[..., 0]
            step *= np.minimum(1, FARTHEST_STEP / np.maximum(np.linalg.norm(step, axis=1), 1e-9))[:, None]
            tried = Racks(at.normal + step, at.choice)
            off_tried = off(tried)
            of_tried = _ln_probable(space, tried, off_tried)
            better = of_tried > probable
            at = Racks(np.where(better[:, None], tried.normal, at.normal), at.choice)
            off_at = np.where(better[:, None], off_tried, off_at)
            probable = np.maximum(probable, of_tried)
            damping = np.where(better, damping / DAMPING_FACTOR, damping * DAMPING_FACTOR)
            if better.all():
                break
    return at, _around(at, off_at, off)[0], probable


def _ln_probable(space: RackSpace, racks: Racks, off: FloatArray) -> FloatArray:
    found: FloatArray = space.ln_probability(racks) - 0.5 * (off**2).sum(1)
    return found


def _around(at: Racks, off_at: FloatArray, off: Off) -> tuple[FloatArray, FloatArray]:
    """Curvature (m, figures, figures) and slope (m, figures) of ln of the probability, by differences."""
    count, figures = at.normal.shape
    steps = SLOPE_STEP * np.eye(figures)
    beside = Racks((at.normal[:, None] + steps).reshape(-1, figures), at.choice.repeat(figures, 0))
    slopes = (off(beside).reshape(count, figures, -1) - off_at[:, None]) / SLOPE_STEP
    curvature = slopes @ slopes.swapaxes(1, 2) + np.eye(figures)
    return curvature, -(slopes @ off_at[..., None])[..., 0] - at.normal
