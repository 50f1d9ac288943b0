"""From boundaries that were measured again to rates that can be relied on. Pure.

ln boundary of a deployment is taken as normal, around a mean of its configuration, with one standard
deviation for all. Sources: Student, The probable error of a mean, Biometrika 6 (1908), for the bounds; the
pooled variance of the analysis of variance (Fisher, Statistical methods for research workers, 1925); Šidák,
Rectangular confidence regions for the means of multivariate normal distributions, JASA 62 (1967), for bounds
that hold together: a configuration is chosen by its mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from tune.records.confirmation import Confirmation, ConfirmedConfiguration, MeanCapacity, Repeat
from tune.records.outcome import Outcome
from tune.spec.load import Load, readable_qps

WIDEST = 5.0
"""Half of an interval of ln boundary that still says something. Our choice: a factor of 148."""

_Logs = Sequence[float]


@dataclass(frozen=True)
class PooledVariance:
    """The standard deviation of ln boundary from deployment to deployment, and on how much it rests."""

    sd: float
    degrees_of_freedom: int

    def either_side(self, confidence: float, variance: float) -> float:
        """How far a mean, or a difference, with so many variances of one deployment may lie off."""
        return self._bound((1 + confidence) / 2, variance)

    def below(self, confidence: float, variance: float, among: int) -> float:
        """How far below, so that it holds for each of `among` configurations at once."""
        return self._bound(confidence ** (1 / among), variance)

    def _bound(self, level: float, variance: float) -> float:
        return float(stdtrit(self.degrees_of_freedom, level)) * self.sd * math.sqrt(variance)


def pooled(samples: Sequence[_Logs]) -> PooledVariance | None:
    """Of `samples`, one of ln boundaries a configuration; None where none has two.

    Formula: the squares around each sample's own mean, summed over all, by sum of (n - 1).
    """
    free = sum(len(logs) - 1 for logs in samples if logs)
    squares = sum((log - mean_of(logs)) ** 2 for logs in samples for log in logs)
    return PooledVariance(math.sqrt(squares / free), free) if free else None


def mean_of(logs: _Logs) -> float:
    return math.fsum(logs) / len(logs)


@dataclass(frozen=True)
class RemeasuredConfiguration:
    """A configuration that was measured again: its trial in the study, and what it was asked and came to."""

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
    """What can be said of `candidates`. The trials that they were chosen by are not used: having won, they
    are likely to have been lucky."""
    read = [(candidate, tuple(_repeat(*one) for one in candidate.repeats)) for candidate in candidates]
    logs = [_logs(repeats) for _, repeats in read]
    noise = pooled(logs)
    among = sum(map(bool, logs))
    stated = [
        _confirmed(candidate, repeats, known, noise=noise, confidence=confidence, among=among)
        for (candidate, repeats), known in zip(read, logs, strict=True)
    ]
    ranked = sorted(stated, key=_merit, reverse=True)
    return Confirmation(
        study=study,
        confidence_frac=confidence,
        deployment_sd_frac=noise.sd if noise else None,
        degrees_of_freedom=noise.degrees_of_freedom if noise else 0,
        configurations=tuple(_beside(one, ranked[0], noise, confidence) for one in ranked),
        study_gpu_hours=study_gpu_hours,
        gpu_hours=gpu_hours,
    )


def _repeat(load: Load, outcome: Outcome) -> Repeat:
    """A boundary above the rates that may be asked counts as the highest of these."""
    found = outcome.capacity_qps
    capacity_qps = found.estimate if _trusted(outcome) else None
    if capacity_qps is not None and load.rate_range_qps:
        capacity_qps = min(capacity_qps, load.rate_range_qps[1])
    return Repeat(
        trial_id=outcome.trial_id,
        shuffle_seed=load.shuffle_seed,
        status=outcome.status,
        reason=None if outcome.feasible else outcome.reason,
        capacity_qps=capacity_qps,
        verified_qps=found.low,
        gpu_hours=outcome.gpu_hours,
    )


def _trusted(outcome: Outcome) -> bool:
    """Whether its boundary rests on a run of full length that can be trusted, or on short probes alone."""
    full = [probe for probe in outcome.probes if probe.full]
    return any(probe.valid for probe in full or outcome.probes)


def _logs(repeats: Sequence[Repeat]) -> list[float]:
    """ln boundary of each; none where a deployment could not run or held nothing: no mean stands for that."""
    known = [one.capacity_qps for one in repeats if one.capacity_qps is not None]
    if any(one.status == "infeasible" for one in repeats) or not all(known):
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
    trial = candidate.trial
    capacity_qps = MeanCapacity(mean=math.exp(mean_of(logs)), low=None, high=None) if logs else None
    next_qps = guaranteed_qps = margin_frac = None
    if logs and noise and _tells(noise, len(logs), confidence, among):
        mean, variance = mean_of(logs), 1 / len(logs)
        either = noise.either_side(confidence, variance)
        capacity_qps = MeanCapacity(
            mean=math.exp(mean), low=math.exp(mean - either), high=math.exp(mean + either)
        )
        guaranteed_qps = readable_qps(math.exp(mean - noise.below(confidence, variance, among)))
        next_qps = readable_qps(math.exp(mean - noise.below(confidence, 1 + variance, among)))
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
            bool(guaranteed_qps and (one.verified_qps or 0) >= guaranteed_qps) for one in repeats
        ),
        tokens_per_query=tokens,
        output_tps_per_gpu=tokens * guaranteed_qps / trial.gpus if tokens and guaranteed_qps else None,
        tied=None,
        overrides=_at(trial.provenance["overrides"], guaranteed_qps) if guaranteed_qps else (),
    )


def _tells(noise: PooledVariance, n: int, confidence: float, among: int) -> bool:
    """Whether the bounds on n deployments and on one more are near enough to say anything."""
    widest = noise.below(confidence, 1 + 1 / n, among), noise.either_side(confidence, 1 / n)
    return max(widest) <= WIDEST


def _missing(repeats: Sequence[Repeat], logs: _Logs, noise: PooledVariance | None) -> str:
    """Why no rate is stated."""
    if logs and noise:
        return f"boundaries differ by {noise.sd:.0%} (sd) from deployment to deployment, too much to say more"
    if logs:
        return "one repeat gives no interval; expected two at least (confirm.repeats=2)"
    reasons = next((one.reason for one in repeats if one.reason), "no repeat is recorded")
    if any(one.status == "infeasible" for one in repeats):
        return f"a deployment could not run as configured: {reasons}"
    if any(one.capacity_qps == 0 for one in repeats):
        return "on a deployment no rate is expected to hold"
    return f"no repeat says where its boundary is: {reasons}"


def _tokens_per_query(outcomes: Sequence[Outcome]) -> float | None:
    """Output tokens per completed query, in the mean of those that measured it."""
    measured = [o.output_tps / o.completed_qps for o in outcomes if o.output_tps and o.completed_qps]
    return math.fsum(measured) / len(measured) if measured else None


def _at(overrides: Sequence[str], target_qps: float) -> tuple[str, ...]:
    """`overrides` of one run, at `target_qps`."""
    kept = [word for word in overrides if not word.startswith(("load.target_qps=", "load.mode="))]
    return *kept, f"load.target_qps={target_qps!r}", "load.mode=fixed"


def _merit(one: ConfirmedConfiguration) -> tuple[float, int]:
    """Output tokens/s/GPU at the mean boundary; the number makes the order total."""
    mean = one.capacity_qps.mean if one.capacity_qps else 0.0
    return mean * (one.tokens_per_query or 0.0) / one.gpus, -one.number


def _beside(
    one: ConfirmedConfiguration,
    first: ConfirmedConfiguration,
    noise: PooledVariance | None,
    confidence: float,
) -> ConfirmedConfiguration:
    """`one` with whether its merit can be told apart from that of `first`."""
    if one is first or noise is None or one.capacity_qps is None:
        return one
    counts = [sum(repeat.capacity_qps is not None for repeat in of.repeats) for of in (one, first)]
    merit, best = _merit(one)[0], _merit(first)[0]
    tied = merit > 0 and math.log(best / merit) <= noise.either_side(confidence, sum(1 / n for n in counts))
    return one.model_copy(update={"tied": tied})
