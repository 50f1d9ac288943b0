"""Derive guaranteed rates from capacities that were measured again. The functions are pure.

ln capacity of a deployment is modelled as normal, with a mean for each configuration and one standard
deviation for all. Sources: Student, The probable error of a mean, Biometrika 6 (1908), for the bounds; the
pooled variance of the analysis of variance (Fisher, Statistical methods for research workers, 1925); Šidák,
Rectangular confidence regions for the means of multivariate normal distributions, JASA 62 (1967), for
bounds that hold together, which are needed because a configuration is chosen by its mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune.records.confirmation import Confirmation, ConfirmedConfiguration, MeanCapacity, Repeat
from tune.records.outcome import Outcome
from tune.spec.load import Load, readable_qps

MAX_HALF_WIDTH = 5.0
"""Largest half width of an interval of ln capacity that is stated: a factor of 148, chosen here."""

_Logs = Sequence[float]


@dataclass(frozen=True)
class PooledVariance:
    """Hold the standard deviation of ln capacity between deployments and its degrees of freedom."""

    sd: float
    degrees_of_freedom: int

    def two_sided(self, confidence: float, variance: float) -> float:
        """Return the half width of a two-sided interval; `variance` is in variances of one deployment."""
        return self._bound((1 + confidence) / 2, variance)

    def one_sided(self, confidence: float, variance: float, among: int) -> float:
        """Return the width of a lower bound that holds for each of `among` configurations at once."""
        return self._bound(confidence ** (1 / among), variance)

    def _bound(self, level: float, variance: float) -> float:
        """Return Student's quantile at `level` in units of ln capacity."""
        from scipy.special import stdtrit  # noqa: PLC0415  (only confirmations need it)

        return float(stdtrit(self.degrees_of_freedom, level)) * self.sd * math.sqrt(variance)


def pooled(samples: Sequence[_Logs]) -> PooledVariance | None:
    """Return the pooled deviation of ln capacities, one sample per configuration; None where none has two.

    Formula: the squares around each sample's own mean, summed over all samples, over the sum of (n - 1).
    """
    free = sum(len(logs) - 1 for logs in samples if logs)
    squares = sum((log - mean_of(logs)) ** 2 for logs in samples for log in logs)
    return PooledVariance(math.sqrt(squares / free), free) if free else None


def mean_of(logs: _Logs) -> float:
    """Return the mean of `logs`, summed without rounding errors."""
    return math.fsum(logs) / len(logs)


@dataclass(frozen=True)
class RemeasuredConfiguration:
    """Hold a remeasured configuration: its trial in the study, and load and outcome of each repeat."""

    trial: Outcome
    repeats: tuple[tuple[Load, Outcome], ...]


def guarantee_rates(
    study: str,
    candidates: Sequence[RemeasuredConfiguration],
    confidence: float,
    *,
    study_gpu_hours: float,
    gpu_hours: float,
) -> Confirmation:
    """Return the guaranteed rates of `candidates`.

    The trials by which they were chosen are not used: having won, they are likely to have been lucky.

    Parameters
    ----------
    study
        Name of the study.
    candidates
        The configurations with their repeats.
    confidence
        Probability with which all guaranteed rates hold together.
    study_gpu_hours, gpu_hours
        GPU-hours of all trials of the study, and of all repeats on record.

    Returns
    -------
    Confirmation
        Configurations best first, by output tokens/s/GPU at the mean capacity.
    """
    remeasured = [
        (candidate, tuple(_repeat(load, outcome) for load, outcome in candidate.repeats))
        for candidate in candidates
    ]
    logs = [_logs(repeats) for _, repeats in remeasured]
    noise = pooled(logs)
    among = sum(map(bool, logs))
    confirmed = [
        _confirmed(candidate, repeats, sample, noise=noise, confidence=confidence, among=among)
        for (candidate, repeats), sample in zip(remeasured, logs, strict=True)
    ]
    ranked = sorted(confirmed, key=_merit, reverse=True)
    return Confirmation(
        study=study,
        confidence_frac=confidence,
        deployment_sd_frac=noise.sd if noise else None,
        degrees_of_freedom=noise.degrees_of_freedom if noise else 0,
        configurations=tuple(_compared(each, ranked[0], noise, confidence) for each in ranked),
        study_gpu_hours=study_gpu_hours,
        gpu_hours=gpu_hours,
    )


def _repeat(load: Load, outcome: Outcome) -> Repeat:
    """Return the repeat of an outcome."""
    capacity = outcome.capacity_qps
    return Repeat(
        trial_id=outcome.trial_id,
        shuffle_seed=load.shuffle_seed,
        status=outcome.status,
        reason=None if outcome.feasible else outcome.reason,
        capacity_qps=capacity.estimate if _is_valid(outcome) else None,
        verified_qps=capacity.low,
        gpu_hours=outcome.gpu_hours,
    )


def _is_valid(outcome: Outcome) -> bool:
    """Return whether a valid run of full length, or without one a valid short run, supports the capacity."""
    full = [probe for probe in outcome.probes if probe.full]
    return any(probe.valid for probe in full or outcome.probes)


def _logs(repeats: Sequence[Repeat]) -> list[float]:
    """Return ln capacity of each repeat; none where a deployment could not run or no rate holds.

    No mean represents a configuration of which a deployment could not run.
    """
    known = [repeat.capacity_qps for repeat in repeats if repeat.capacity_qps is not None]
    if any(repeat.status == "infeasible" for repeat in repeats) or not all(known):
        return []
    return [math.log(capacity_qps) for capacity_qps in known]


def _confirmed(
    candidate: RemeasuredConfiguration,
    repeats: tuple[Repeat, ...],
    logs: _Logs,
    *,
    noise: PooledVariance | None,
    confidence: float,
    among: int,
) -> ConfirmedConfiguration:
    """Summarise the repeats of one configuration; `among` configurations are bounded together."""
    trial = candidate.trial
    capacity_qps = MeanCapacity(mean=math.exp(mean_of(logs)), low=None, high=None) if logs else None
    next_qps = guaranteed_qps = margin_frac = None
    if logs and noise and _is_informative(noise, len(logs), confidence, among):
        mean, variance = mean_of(logs), 1 / len(logs)
        half_width = noise.two_sided(confidence, variance)
        capacity_qps = MeanCapacity(
            mean=math.exp(mean), low=math.exp(mean - half_width), high=math.exp(mean + half_width)
        )
        guaranteed_qps = readable_qps(math.exp(mean - noise.one_sided(confidence, variance, among)))
        next_qps = readable_qps(math.exp(mean - noise.one_sided(confidence, 1 + variance, among)))
        margin_frac = max(0.0, 1 - guaranteed_qps / math.exp(mean))
    tokens = _tokens_per_query([outcome for _, outcome in candidate.repeats])
    return ConfirmedConfiguration(
        trial_id=trial.trial_id,
        number=trial.number,
        gpus=trial.gpus,
        repeats=repeats,
        reason=None if guaranteed_qps else _missing(repeats, logs, noise),
        capacity_qps=capacity_qps,
        guaranteed_qps=guaranteed_qps,
        margin_frac=margin_frac,
        next_deployment_qps=next_qps,
        slo_held_repeats=sum(
            bool(guaranteed_qps and (repeat.verified_qps or 0) >= guaranteed_qps) for repeat in repeats
        ),
        tokens_per_query=tokens,
        output_tps_per_gpu=tokens * guaranteed_qps / trial.gpus if tokens and guaranteed_qps else None,
        tied=None,
        overrides=_at(trial.provenance["overrides"], guaranteed_qps) if guaranteed_qps else (),
    )


def _is_informative(noise: PooledVariance, n: int, confidence: float, among: int) -> bool:
    """Return whether the bounds on n deployments and on one more are narrow enough to be stated."""
    widest = noise.one_sided(confidence, 1 + 1 / n, among), noise.two_sided(confidence, 1 / n)
    return max(widest) <= MAX_HALF_WIDTH


def _missing(repeats: Sequence[Repeat], logs: _Logs, noise: PooledVariance | None) -> str:
    """Return why no rate is guaranteed."""
    if logs and noise:
        return f"capacities differ by {noise.sd:.0%} (sd) between deployments, too much for a guaranteed rate"
    if logs:
        return "one repeat gives no interval; expected two at least (confirm.repeats=2)"
    reasons = next((repeat.reason for repeat in repeats if repeat.reason), "no repeat is recorded")
    if any(repeat.status == "infeasible" for repeat in repeats):
        return f"a deployment could not run as configured: {reasons}"
    if any(repeat.capacity_qps == 0 for repeat in repeats):
        return "on a deployment no rate is expected to hold"
    return f"no repeat gives an estimate of its capacity: {reasons}"


def _tokens_per_query(outcomes: Sequence[Outcome]) -> float | None:
    """Return output tokens per completed query, as the mean over the outcomes that measured it."""
    measured = [o.output_tps / o.completed_qps for o in outcomes if o.output_tps and o.completed_qps]
    return math.fsum(measured) / len(measured) if measured else None


def _at(overrides: Sequence[str], target_qps: float) -> tuple[str, ...]:
    """Return `overrides` for one run at `target_qps`."""
    kept = [text for text in overrides if not text.startswith(("load.target_qps=", "load.mode="))]
    return *kept, f"load.target_qps={target_qps!r}", "load.mode=fixed"


def _merit(configuration: ConfirmedConfiguration) -> tuple[float, int]:
    """Return output tokens/s/GPU at the mean capacity, and the number, which makes the order total."""
    mean = configuration.capacity_qps.mean if configuration.capacity_qps else 0.0
    return mean * (configuration.tokens_per_query or 0.0) / configuration.gpus, -configuration.number


def _compared(
    configuration: ConfirmedConfiguration,
    first: ConfirmedConfiguration,
    noise: PooledVariance | None,
    confidence: float,
) -> ConfirmedConfiguration:
    """Return `configuration` with `tied`: whether its merit cannot be separated from that of `first`."""
    if configuration is first or noise is None or configuration.capacity_qps is None:
        return configuration
    counts = [
        sum(repeat.capacity_qps is not None for repeat in each.repeats) for each in (configuration, first)
    ]
    merit, best = _merit(configuration)[0], _merit(first)[0]
    tied = merit > 0 and math.log(best / merit) <= noise.two_sided(confidence, sum(1 / n for n in counts))
    return configuration.model_copy(update={"tied": tied})
