"""Build the importance-sampling proposal: a mixture of Laplace approximations at local posterior maxima.

Each start climbs by itself (Levenberg-Marquardt; Marquardt, J. SIAM 11, 1963). The normal around each maximum
has the inverse of the curvature there as covariance. Source of a mixture of such normals as the proposal:
Raftery and Bao, Biometrics 66, 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.surrogate.prior import ParameterPrior, ParameterSamples

LM_ITERATIONS = 4
"""Levenberg-Marquardt steps of each start, accepted or not. Chosen here by what a suggestion may cost."""

FIRST_DAMPING, DAMPING_FACTOR = 1.0, 5.0
"""Levenberg-Marquardt damping of the first step, and what a step divides or multiplies it by. Chosen here."""

LARGEST_STEP_SDS = 2.0
"""Longest step, in prior standard deviations over all parameters together: capacities are far from linear."""

DIFFERENCE_STEP_SDS = 0.05
"""Step of the finite differences, in prior standard deviations. Chosen here."""

UNIFORM_MIX_FRAC = 0.3
"""Share of the draws that is split evenly over all components, so that a component whose climb ended early is
not missed. Chosen here."""

PROPOSAL_INFLATION = 1.2
"""Factor by which the standard deviations of the components exceed those of the Laplace approximation."""


class ObservationModel(Protocol):
    """Predict n observations of two pools from parameter samples."""

    @property
    def sensitivity_mask(self) -> BoolArray:
        """Return which parameter changes which pool of which observation, shape (parameters, 2, n)."""

    def residual(self, samples: ParameterSamples) -> FloatArray:
        """Return how far the predictions must move to agree with the observations, (2, samples, n)."""

    def whitened(self, samples: ParameterSamples, residual: FloatArray) -> FloatArray:
        """Return `residual` (2, samples, n) in independent standard deviations, shape (samples, 2n)."""

    def log_likelihood(self, samples: ParameterSamples, residual: FloatArray) -> FloatArray:
        """Return the log likelihood of each sample with `residual`, shape (samples,), up to a constant."""


class LaplaceMixture:
    """Approximate the posterior by one normal at the maximum that each start reaches.

    The discrete hypotheses of a component stay those of its start.
    """

    def __init__(
        self, prior: ParameterPrior, starts: ParameterSamples, observations: ObservationModel
    ) -> None:
        """Climb from `starts`; weigh each component by the Laplace estimate of its posterior mass."""
        self._prior = prior
        self._modes, log_posterior, curvature = _local_maxima(prior, starts, observations)
        self._lower = np.linalg.cholesky(curvature / PROPOSAL_INFLATION**2)
        self._log_determinant = np.log(np.diagonal(self._lower, axis1=1, axis2=2)).sum(1)
        log_mass = log_posterior - self._log_determinant
        share = np.exp(log_mass - log_mass.max())
        self._share = (1 - UNIFORM_MIX_FRAC) * share / share.sum() + UNIFORM_MIX_FRAC / len(share)

    def draw(self, count: int, generator: np.random.Generator) -> ParameterSamples:
        """Draw `count` samples from the mixture."""
        component = generator.choice(len(self._modes), count, p=self._share)
        white = generator.normal(size=(count, self._modes.normal.shape[1]))
        spread = np.linalg.inv(self._lower)[component]
        return ParameterSamples(
            self._modes.normal[component] + np.einsum("cba,cb->ca", spread, white),
            self._modes.choice[component],
        )

    def log_importance_weight(self, samples: ParameterSamples) -> FloatArray:
        """Return log prior density minus log mixture density, shape (samples,), up to a constant."""
        difference = samples.normal - self._modes.normal[:, None]
        squares = ((difference @ self._lower) ** 2).sum(-1).T
        log_component = np.log(self._share) + self._log_determinant - squares / 2
        same = (samples.choice[:, None] == self._modes.choice).all(-1)
        log_weight: FloatArray = self._prior.log_density(samples) - np.logaddexp.reduce(
            np.where(same, log_component, -np.inf), axis=1
        )
        return log_weight


def _local_maxima(
    prior: ParameterPrior, starts: ParameterSamples, observations: ObservationModel
) -> tuple[ParameterSamples, FloatArray, FloatArray]:
    """Return the points reached from `starts` (m,), the log posterior there (m,), and the curvature.

    The curvature (m, parameters, parameters) is the Gauss-Newton Hessian of the negative log posterior where
    the last step began.
    """
    groups = independent_parameter_groups(observations.sensitivity_mask)
    points, residual = starts, observations.residual(starts)
    best = _log_posterior(prior, observations, points, residual)
    damping = np.full(len(points), FIRST_DAMPING)
    for _ in range(LM_ITERATIONS):
        slopes = _slopes(observations, groups, points, residual)
        curvature = slopes @ slopes.swapaxes(1, 2) + np.eye(slopes.shape[1])
        ascent = -(slopes @ observations.whitened(points, residual)[..., None])[..., 0] - points.normal
        damped = curvature * (1 + damping[:, None, None] * np.eye(slopes.shape[1]))
        step = np.linalg.solve(damped, ascent[..., None])[..., 0]
        step *= np.minimum(1, LARGEST_STEP_SDS / np.maximum(np.linalg.norm(step, axis=1), 1e-9))[:, None]
        candidates = ParameterSamples(points.normal + step, points.choice)
        candidate_residual = observations.residual(candidates)
        log_posterior = _log_posterior(prior, observations, candidates, candidate_residual)
        better = log_posterior > best
        points = ParameterSamples(np.where(better[:, None], candidates.normal, points.normal), points.choice)
        residual = np.where(better[:, None], candidate_residual, residual)
        best = np.maximum(best, log_posterior)
        damping = np.where(better, damping / DAMPING_FACTOR, damping * DAMPING_FACTOR)
    return points, best, curvature


def _log_posterior(
    prior: ParameterPrior, observations: ObservationModel, samples: ParameterSamples, residual: FloatArray
) -> FloatArray:
    """Return the log posterior density of each sample up to a constant; `residual` is that of `samples`."""
    log_posterior: FloatArray = prior.log_density(samples) + observations.log_likelihood(samples, residual)
    return log_posterior


def _slopes(
    observations: ObservationModel,
    groups: Sequence[IntArray],
    points: ParameterSamples,
    residual: FloatArray,
) -> FloatArray:
    """Return the slopes of the whitened residual by finite differences, (samples, parameters, 2n).

    `residual` is that of `points`. All parameters of one of `groups` are moved at once.
    """
    count, parameters = points.normal.shape
    steps = np.zeros((len(groups), parameters))
    for step, group in zip(steps, groups, strict=True):
        step[group] = DIFFERENCE_STEP_SDS
    moved_points = ParameterSamples(
        (points.normal[:, None] + steps).reshape(-1, parameters), points.choice.repeat(len(groups), 0)
    )
    moved = observations.residual(moved_points).reshape(2, count, len(groups), -1)
    group_slopes = (moved - residual[:, :, None]) / DIFFERENCE_STEP_SDS
    slopes = np.zeros((2, count, parameters, residual.shape[-1]))
    for number, group in enumerate(groups):
        for parameter in group.tolist():
            mask = observations.sensitivity_mask[parameter][:, None]
            slopes[:, :, parameter] = group_slopes[:, :, number] * mask
    every = points[np.arange(count).repeat(parameters)]
    return observations.whitened(every, slopes.reshape(2, len(every), -1)).reshape(count, parameters, -1)


def independent_parameter_groups(sensitivity_mask: BoolArray) -> list[IntArray]:
    """Group parameters of which no two change one observation of one pool.

    One finite difference then gives the slopes of a whole group. `sensitivity_mask` has the shape
    (parameters, 2, n).

    Source: Curtis, Powell and Reid, IMA J. Appl. Math. 13, 1974.
    """
    groups: list[list[int]] = []
    for parameter, mask in enumerate(sensitivity_mask):
        for group in groups:
            if not (sensitivity_mask[group].any(0) & mask).any():
                group.append(parameter)
                break
        else:
            groups.append([parameter])
    return [np.array(group) for group in groups]
