"""Racks that explain best what was measured, and a density around them from which probable ones are drawn.

Each start climbs by itself (Levenberg and Marquardt: J. SIAM 11, 1963); around where it comes to lies a
normal as wide as the curvature there says. Source of a mixture of those to draw from: Raftery and Bao,
Biometrics 66, 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.surrogate.prior import ParameterPrior, ParameterSamples

LM_ITERATIONS = 4
"""Steps of each start, tried or taken. Our choice: what an ask may cost."""

FIRST_DAMPING, DAMPING_FACTOR = 1.0, 5.0
LARGEST_STEP_SDS = 2.0
"""In standard deviations of all figures together: the bounds are far from linear."""

DIFFERENCE_STEP_SDS = 0.05
UNIFORM_MIX_FRAC = 0.3
"""Share of the draws that all modes get alike, lest one that was climbed badly be missed. Our choice."""

PROPOSAL_INFLATION = 1.2


class ObservationModel(Protocol):
    """What was measured, as it looks from racks; n measurements of two bounds."""

    @property
    def touched(self) -> BoolArray:
        """Which figure changes which bound: (figures, 2, n)."""

    def residual(self, racks: ParameterSamples) -> FloatArray:
        """What the racks leave unexplained: (2, racks, n)."""

    def whitened(self, residual: FloatArray) -> FloatArray:
        """`residual` in independent standard deviations: (racks, 2n)."""


class LaplaceMixture:
    """Where `starts` climb to, where a rack is as probable as `space` has it before and `told` after.

    Hypotheses stay those of the start.
    """

    def __init__(self, space: ParameterPrior, starts: ParameterSamples, told: ObservationModel) -> None:
        self._space = space
        self._at, ln_probable, curvature = _climbed(space, starts, told)
        self._lower = np.linalg.cholesky(curvature / PROPOSAL_INFLATION**2)
        self._ln_density = np.log(np.diagonal(self._lower, axis1=1, axis2=2)).sum(1)
        mass = ln_probable - self._ln_density
        share = np.exp(mass - mass.max())
        self._share = (1 - UNIFORM_MIX_FRAC) * share / share.sum() + UNIFORM_MIX_FRAC / len(share)

    def draw(self, count: int, draws: np.random.Generator) -> ParameterSamples:
        of = draws.choice(len(self._at), count, p=self._share)
        white = draws.normal(size=(count, self._at.normal.shape[1]))
        spread = np.linalg.inv(self._lower)[of]
        return ParameterSamples(
            self._at.normal[of] + np.einsum("cba,cb->ca", spread, white), self._at.choice[of]
        )

    def log_importance_weight(self, racks: ParameterSamples) -> FloatArray:
        """ln of how much more probable each rack was before than it is to be drawn here, (racks,), but for a
        constant."""
        apart = racks.normal - self._at.normal[:, None]
        squares = ((apart @ self._lower) ** 2).sum(-1).T
        ln_drawn = np.log(self._share) + self._ln_density - squares / 2
        same = (racks.choice[:, None] == self._at.choice).all(-1)
        found: FloatArray = self._space.ln_probability(racks) - np.logaddexp.reduce(
            np.where(same, ln_drawn, -np.inf), axis=1
        )
        return found


def _climbed(
    space: ParameterPrior, starts: ParameterSamples, told: ObservationModel
) -> tuple[ParameterSamples, FloatArray, FloatArray]:
    """Where each of `starts` (m,) comes to, ln of its probability there (m,), and the curvature of that where
    the last step began, (m, figures, figures)."""
    groups = independent_parameter_groups(told.touched)
    at, residual = starts, told.residual(starts)
    probable = _ln_probable(space, told, at, residual)
    damping = np.full(len(at), FIRST_DAMPING)
    for _ in range(LM_ITERATIONS):
        slopes = _slopes(told, groups, at, residual)
        curvature = slopes @ slopes.swapaxes(1, 2) + np.eye(slopes.shape[1])
        ascent = -(slopes @ told.whitened(residual)[..., None])[..., 0] - at.normal
        eased = curvature * (1 + damping[:, None, None] * np.eye(slopes.shape[1]))
        step = np.linalg.solve(eased, ascent[..., None])[..., 0]
        step *= np.minimum(1, LARGEST_STEP_SDS / np.maximum(np.linalg.norm(step, axis=1), 1e-9))[:, None]
        tried = ParameterSamples(at.normal + step, at.choice)
        of_tried = told.residual(tried)
        ln_tried = _ln_probable(space, told, tried, of_tried)
        better = ln_tried > probable
        at = ParameterSamples(np.where(better[:, None], tried.normal, at.normal), at.choice)
        residual = np.where(better[:, None], of_tried, residual)
        probable = np.maximum(probable, ln_tried)
        damping = np.where(better, damping / DAMPING_FACTOR, damping * DAMPING_FACTOR)
    return at, probable, curvature


def _ln_probable(
    space: ParameterPrior, told: ObservationModel, racks: ParameterSamples, residual: FloatArray
) -> FloatArray:
    found: FloatArray = space.ln_probability(racks) - 0.5 * (told.whitened(residual) ** 2).sum(1)
    return found


def _slopes(
    told: ObservationModel, groups: Sequence[IntArray], at: ParameterSamples, residual: FloatArray
) -> FloatArray:
    """Of what is whitened, by figure, by differences: (racks, figures, 2n); `residual` is that of `at`."""
    count, figures = at.normal.shape
    steps = np.zeros((len(groups), figures))
    for step, group in zip(steps, groups, strict=True):
        step[group] = DIFFERENCE_STEP_SDS
    beside = ParameterSamples(
        (at.normal[:, None] + steps).reshape(-1, figures), at.choice.repeat(len(groups), 0)
    )
    moved = told.residual(beside).reshape(2, count, len(groups), -1)
    of_groups = (moved - residual[:, :, None]) / DIFFERENCE_STEP_SDS
    slopes = np.zeros((2, count, figures, residual.shape[-1]))
    for at_group, group in enumerate(groups):
        for figure in group.tolist():
            slopes[:, :, figure] = of_groups[:, :, at_group] * told.touched[figure][:, None]
    return told.whitened(slopes.reshape(2, count * figures, -1)).reshape(count, figures, -1)


def independent_parameter_groups(touched: BoolArray) -> list[IntArray]:
    """Groups of figures of which no two change the same bound: one difference tells the slopes of a group.

    Source: Curtis, Powell and Reid, IMA J. Appl. Math. 13, 1974.
    """
    groups: list[list[int]] = []
    for figure, changes in enumerate(touched):
        for group in groups:
            if not (touched[group].any(0) & changes).any():
                group.append(figure)
                break
        else:
            groups.append([figure])
    return [np.array(group) for group in groups]
