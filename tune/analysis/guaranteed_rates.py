"""Derive the rates that a confirmation guarantees from repeats of the best configurations. Pure functions.

The bounds and their sources are those of tune/analysis/repeated_capacities.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune.analysis.model_error_sources import covered_frac
from tune.analysis.repeated_capacities import Logs, PooledVariance, ShuffleNoise, mean_of, pooled
from tune.records.confirmation import (
    Confirmation,
    ConfirmedConfiguration,
    Loss,
    MeanCapacity,
    PredictedConfiguration,
    Repeat,
)
from tune.records.model_error import ModelError
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval
from tune.spec.load import Load, readable_qps

MAX_HALF_WIDTH = 5.0
"""Largest half width of an interval of ln capacity that is stated: a factor of 148, chosen here."""


@dataclass(frozen=True)
class RemeasuredConfiguration:
    """Hold a remeasured configuration: its trial in the study, and load and outcome of each repeat.

    `shuffles` is what one run varies by from shuffle to shuffle, None where no repeat has a capacity. For a
    configuration that the study did not measure, `expected_output_tps_per_gpu` is what it expected, and
    `trial` stands for the first repeat.
    """

    trial: Outcome
    repeats: tuple[tuple[Load, Outcome], ...]
    shuffles: ShuffleNoise | None
    expected_output_tps_per_gpu: Interval | None = None

    @property
    def model_error(self) -> ModelError | None:
        """Return the simulator's own error at the capacity, that of the trial where no repeat has one."""
        errors = (outcome.model_error for _, outcome in self.repeats)
        return next((error for error in errors if error), self.trial.model_error)


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
        Probability with which one further full run at a guaranteed rate holds.
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
    errors = {candidate.trial.trial_id: candidate.model_error for candidate in candidates}
    return Confirmation(
        study=study,
        confidence_frac=confidence,
        deployment_sd_frac=noise.sd if noise else None,
        degrees_of_freedom=noise.degrees_of_freedom if noise else 0,
        configurations=tuple(_compared(each, ranked[0], errors, noise, confidence) for each in ranked),
        study_gpu_hours=study_gpu_hours,
        gpu_hours=gpu_hours,
        guarantee="next_run",
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
    logs: Logs,
    *,
    noise: PooledVariance | None,
    confidence: float,
    among: int,
) -> ConfirmedConfiguration:
    """Summarise the repeats of one configuration, the best of which may be the luckiest of `among`."""
    trial, shuffles, expected = candidate.trial, candidate.shuffles, candidate.expected_output_tps_per_gpu
    capacity_qps = MeanCapacity(mean=math.exp(mean_of(logs)), low=None, high=None) if logs else None
    guaranteed_qps = margin_frac = None
    highest_qps = max((repeat.verified_qps or 0.0 for repeat in repeats), default=0.0)
    if capacity_qps and noise and shuffles:
        half_width = noise.two_sided(confidence, 1 / len(logs))
        margin = noise.next_run_margin(confidence, len(logs), among, shuffles)
        if max(half_width, margin) <= MAX_HALF_WIDTH:
            capacity_qps = _with_interval(capacity_qps.mean, half_width)
            next_run_qps = capacity_qps.mean * math.exp(-margin)
            guaranteed_qps = min(readable_qps(next_run_qps), highest_qps) or None
    if capacity_qps and guaranteed_qps:
        margin_frac = max(0.0, 1 - guaranteed_qps / capacity_qps.mean)
    tokens = _tokens_per_query([outcome for _, outcome in candidate.repeats])
    return ConfirmedConfiguration(
        trial_id=trial.trial_id,
        number=None if expected else trial.number,
        gpus=trial.gpus,
        repeats=repeats,
        reason=None if guaranteed_qps else _missing(repeats, logs, noise, highest_qps),
        capacity_qps=capacity_qps,
        guaranteed_qps=guaranteed_qps,
        margin_frac=margin_frac,
        slo_met_repeats=sum(
            bool(guaranteed_qps and (repeat.verified_qps or 0) >= guaranteed_qps) for repeat in repeats
        ),
        tokens_per_query=tokens,
        output_tps_per_gpu=tokens * guaranteed_qps / trial.gpus if tokens and guaranteed_qps else None,
        tied=None,
        overrides=_at(trial.provenance["overrides"], guaranteed_qps) if guaranteed_qps else (),
        shuffle_sd_frac=shuffles.sd if shuffles else None,
        model_error_frac=covered_frac(candidate.model_error.sd_frac) if candidate.model_error else None,
        predicted=PredictedConfiguration(expected_output_tps_per_gpu=expected, outcome=trial)
        if expected
        else None,
    )


def _with_interval(mean_qps: float, half_width: float) -> MeanCapacity:
    """Return a mean capacity with its interval, `half_width` in units of ln capacity."""
    low_qps, high_qps = (mean_qps * math.exp(sign * half_width) for sign in (-1, 1))
    return MeanCapacity(mean=mean_qps, low=low_qps, high=high_qps)


def _missing(repeats: Sequence[Repeat], logs: Logs, noise: PooledVariance | None, highest_qps: float) -> str:
    """Return why no rate is guaranteed; `highest_qps` is the highest verified rate, 0 without one."""
    if logs and noise and not highest_qps:
        return "no full run of its repeats held"
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


def _merit(configuration: ConfirmedConfiguration) -> tuple[float, float]:
    """Return output tokens/s/GPU at the mean capacity, and the number; trials of the study go first."""
    number = math.inf if configuration.number is None else configuration.number
    return configuration.mean_output_tps_per_gpu or 0.0, -number


def _compared(
    configuration: ConfirmedConfiguration,
    first: ConfirmedConfiguration,
    errors: Mapping[str, ModelError | None],
    noise: PooledVariance | None,
    confidence: float,
) -> ConfirmedConfiguration:
    """Return `configuration` with what it loses against `first`, and whether the data show a loss at all."""
    merit, best = _merit(configuration)[0], _merit(first)[0]
    if configuration is first or noise is None or not merit:
        return configuration
    counts = [
        sum(repeat.capacity_qps is not None for repeat in each.repeats) for each in (configuration, first)
    ]
    behind, half_width = math.log(best / merit), noise.two_sided(confidence, sum(1 / n for n in counts))
    loss = None
    if half_width <= MAX_HALF_WIDTH:
        loss = Loss(
            mean_frac=-math.expm1(-behind),
            low_frac=-math.expm1(half_width - behind),
            high_frac=-math.expm1(-half_width - behind),
            model_error_frac=_difference_error_frac(errors[configuration.trial_id], errors[first.trial_id]),
        )
    return configuration.model_copy(update={"tied": behind <= half_width, "loss": loss})


def _difference_error_frac(one: ModelError | None, other: ModelError | None) -> float | None:
    """Return half of the 90 % interval of the simulator's own error of a difference, None on a real rack."""
    return covered_frac(one.difference_sd_frac(other)) if one and other else None
