"""Find the rate that one further full run holds, from capacities that were measured again. Pure functions.

ln capacity of a deployment is modelled as normal, with a mean for each configuration and one standard
deviation for all. What one run holds varies around it with the shuffle, by a standard deviation of its own.
Sources: Student, The probable error of a mean, Biometrika 6 (1908); the pooled variance of the analysis of
variance (Fisher, Statistical methods for research workers, 1925); Satterthwaite, An approximate distribution
of estimates of variance components, Biometrics Bulletin 2 (1946), for the degrees of freedom of a sum; Blom,
Statistical estimates and transformed beta-variables (1958), for the best of several means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

Logs = Sequence[float]
"""Natural logarithms of the capacities of one configuration."""


@dataclass(frozen=True)
class ShuffleNoise:
    """Hold how far ln(rate that a run holds) lies below ln capacity in unlucky shuffles (deviation)."""

    sd: float
    degrees_of_freedom: int


@dataclass(frozen=True)
class PooledVariance:
    """Hold the standard deviation of ln capacity between deployments and its degrees of freedom."""

    sd: float
    degrees_of_freedom: int

    def two_sided(self, confidence: float, variance: float) -> float:
        """Return the half width of a two-sided interval; `variance` is in variances of one deployment."""
        quantile = student_quantile((1 + confidence) / 2, self.degrees_of_freedom)
        return quantile * self.sd * math.sqrt(variance)

    def next_run_margin(self, confidence: float, repeats: int, among: int, shuffles: ShuffleNoise) -> float:
        """Return how far below its mean capacity a configuration holds one further full run.

        Three errors count: that of the mean, the deployment of the further run, and its shuffle. The best of
        several means is expected to be too high even where all configurations are equal, by Blom's
        approximation of the largest of `among` normal deviates.

        Parameters
        ----------
        confidence
            Probability with which the run holds.
        repeats, among
            Capacities of the configuration, and configurations that were measured again.
        shuffles
            What a run varies by in one more shuffle.

        Returns
        -------
        float
            The margin in units of ln(rate).
        """
        deployment, shuffle = self.sd**2 * (1 + 1 / repeats), shuffles.sd**2
        parts = deployment**2 / self.degrees_of_freedom + shuffle**2 / shuffles.degrees_of_freedom
        if not parts:
            return 0.0
        free = (deployment + shuffle) ** 2 / parts
        selected = NormalDist().inv_cdf((among - 0.375) / (among + 0.25)) * self.sd / math.sqrt(repeats)
        return student_quantile(confidence, free) * math.sqrt(deployment + shuffle) + selected


def pooled(samples: Sequence[Logs]) -> PooledVariance | None:
    """Return the pooled deviation of ln capacities, one sample per configuration; None where none has two.

    Formula: the squares around each sample's own mean, summed over all samples, over the sum of (n - 1).
    """
    free = sum(len(logs) - 1 for logs in samples if logs)
    squares = sum((log - mean_of(logs)) ** 2 for logs in samples for log in logs)
    return PooledVariance(math.sqrt(squares / free), free) if free else None


def mean_of(logs: Logs) -> float:
    """Return the mean of `logs`, summed without rounding errors."""
    return math.fsum(logs) / len(logs)


def student_quantile(level: float, degrees_of_freedom: float) -> float:
    """Return the quantile of Student's t at `level`."""
    from scipy.special import stdtrit  # noqa: PLC0415  (only confirmations need it)

    return float(stdtrit(degrees_of_freedom, level))
