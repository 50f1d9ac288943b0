"""Name the kind of a configuration, its split and parallelism, and find the best trial of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune.records.confirmation import ConfirmedConfiguration
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import is_capacity_search
from tune.report.model_error_text import simulated_change
from tune.report.trial_status import baseline_trial
from tune.spec.engine import SettingName
from tune.spec.engine_table import settings_class

POOLS = ("prefill", "decode")
FURTHER_PARALLELISM: dict[str, SettingName] = {"CP": "context_parallel", "PP": "pipeline_stages"}
"""Parallelism that is named where it is more than 1, by its short name."""


@dataclass(frozen=True)
class BestOfKind:
    """Hold the best trial of one kind, in output tokens/s per GPU.

    `held` is what the kind gives while its SLO holds, at the guaranteed rate if it was confirmed, and None if
    none of its trials held. `missed` is the throughput at the lowest rate above it that missed the SLO, None
    if no rate above it was measured. `interval` is that of the mean capacity of a confirmed kind; of another
    simulated one it is the 90 % interval of `held` beside the recommended configuration, by the simulator's
    own error; None without one. `trials` counts the valid trials of the kind.
    """

    label: str
    trials: int
    held: float | None
    missed: float | None
    interval: tuple[float, float] | None
    is_confirmed: bool
    is_recommended: bool
    is_baseline: bool


def kind_label(outcome: Outcome, study: StudyRecord) -> str | None:
    """Return split and parallelism, such as 14P4D TP4/TP4; None for a trial without a recorded split."""
    split = formatting.split_label(outcome)
    if split is None:
        return None
    parallelism = "/".join(part for pool in POOLS if (part := _parallelism(outcome, study, pool)))
    return f"{split} {parallelism}".rstrip()


def _parallelism(outcome: Outcome, study: StudyRecord, pool: str) -> str:
    """Return TP4, or TP4xCP2xPP2 with context parallelism and stages; empty if it is not on record."""
    keys = settings_class(study.engine).KEYS
    tensor = _setting(outcome, study, pool, keys["tensor_parallel"])
    if tensor is None:
        return ""
    further = {
        short: _setting(outcome, study, pool, keys[name])
        for short, name in FURTHER_PARALLELISM.items()
        if name in keys
    }
    return f"TP{tensor}" + "".join(f"x{short}{n}" for short, n in further.items() if n not in (None, 1))


def _setting(outcome: Outcome, study: StudyRecord, pool: str, key: str) -> object:
    """Return a setting of a pool: the value proposed for the trial, or that of the study."""
    path, point = f"{pool}.{key}", formatting.params(outcome)
    for name, dimension in study.space.items():
        if dimension.path == path and name in point:
            return point[name]
    if not study.space:
        for override in formatting.overrides(outcome) or ():
            if override.removeprefix("+").startswith(f"{path}="):
                return override.partition("=")[2]
    return study.base.get(pool, {}).get(key)


def best_of_kinds(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranked: Sequence[str],
    confirmed: Mapping[str, ConfirmedConfiguration],
    recommended: Outcome | None,
) -> list[BestOfKind]:
    """Return the best trial of every kind with a valid trial: the recommended kind first, then the fastest.

    If the study varies neither split nor parallelism, a kind is a configuration at any rate.

    Parameters
    ----------
    study
        The record of the study.
    outcomes
        Each trial once.
    ranked
        Ids of the measured trials, best first.
    confirmed
        The configurations with a guaranteed rate, by the id of their trial.
    recommended
        The trial that the page recommends, None if it recommends none.

    Returns
    -------
    list[BestOfKind]
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    valid = [by_id[trial_id] for trial_id in ranked if by_id[trial_id].valid]
    labels = {o.trial_id: kind_label(o, study) for o in valid}
    if len(set(labels.values())) < 2:
        labels = {o.trial_id: formatting.describe_configuration(o, study.space) for o in valid}
    groups: dict[str, list[Outcome]] = {}
    for outcome in valid:
        groups.setdefault(labels[outcome.trial_id] or formatting.DASH, []).append(outcome)
    baseline = baseline_trial(study, outcomes)
    kinds = [_best_of(label, group, confirmed, recommended, baseline) for label, group in groups.items()]
    return sorted(kinds, key=lambda kind: (not kind.is_recommended, -(kind.held or 0.0)))


def _best_of(
    label: str,
    group: Sequence[Outcome],
    confirmed: Mapping[str, ConfirmedConfiguration],
    recommended: Outcome | None,
    baseline: Outcome | None,
) -> BestOfKind:
    """Return the best of `group`, whose trials are in order of rank; a confirmed trial goes first."""
    best = next((outcome for outcome in group if outcome.trial_id in confirmed), group[0])
    configuration = confirmed.get(best.trial_id)
    held = best.output_tps_per_gpu if best.feasible else None
    interval = _simulated_interval(held, best, recommended)
    if configuration:
        held, interval = configuration.output_tps_per_gpu, _capacity_interval(configuration)
    return BestOfKind(
        label=label,
        trials=len(group),
        held=held,
        missed=_lowest_missed(best, group),
        is_confirmed=configuration is not None,
        interval=interval,
        is_recommended=recommended in group,
        is_baseline=baseline in group,
    )


def _capacity_interval(configuration: ConfirmedConfiguration) -> tuple[float, float] | None:
    """Return the interval of the mean capacity as output tokens/s per GPU, None without one."""
    mean, per_gpu = configuration.capacity_qps, configuration.output_tps_per_gpu
    if mean is None or mean.low is None or mean.high is None:
        return None
    if not per_gpu or not configuration.guaranteed_qps:
        return None
    per_query = per_gpu / configuration.guaranteed_qps
    return per_query * mean.low, per_query * mean.high


def _simulated_interval(
    held: float | None, best: Outcome, recommended: Outcome | None
) -> tuple[float, float] | None:
    """Return the 90 % interval of `held` beside the recommended trial, None for that trial itself."""
    change = simulated_change(recommended, best) if recommended else None
    if held is None or change is None or not change.error_frac:
        return None
    return held / (1 + change.error_frac), held * (1 + change.error_frac)


def _lowest_missed(best: Outcome, group: Sequence[Outcome]) -> float | None:
    """Return output tokens/s per GPU at the lowest rate above the best one that missed its SLO."""
    if is_capacity_search(best):
        rates = [best.capacity_qps.high] if best.capacity_qps.high else []
    else:
        rates = [o.target_qps for o in group if not o.feasible]
    above = [qps for qps in rates if not best.feasible or qps > best.target_qps]
    if not above or not best.output_tps_per_gpu:
        return None
    return best.output_tps_per_gpu / (best.completed_qps or best.target_qps) * min(above)
