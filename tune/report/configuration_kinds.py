"""Find the best trial of each kind of configuration, and what the surrogate expects of the other kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tune.records.confirmation import Confirmation, ConfirmedConfiguration
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, KindPosterior
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.capacity_text import is_capacity_search
from tune.report.kind_label import kind_label
from tune.report.model_error_text import simulated_change
from tune.report.recommended import recommended_configuration
from tune.report.trial_status import baseline_trial


@dataclass(frozen=True)
class BestOfKind:
    """Hold the best trial of one kind, or what is predicted of it, in output tokens/s per GPU.

    `held` is what the kind gives while its SLO holds, at the guaranteed rate if it was confirmed, and None if
    none of its trials held. `missed` is the throughput at the lowest rate above it that missed the SLO, None
    if no rate above it was measured. `interval` is that of the mean capacity of a confirmed kind; of another
    simulated one it is the 90 % interval of `held` beside the recommended configuration, by the simulator's
    own error; None without one. `expected` is the surrogate's prediction of `held` where that is None.
    `trials` counts the valid trials of the kind.
    """

    label: str
    trials: int = 0
    held: float | None = None
    missed: float | None = None
    interval: tuple[float, float] | None = None
    expected: Interval | None = None
    is_confirmed: bool = False
    is_recommended: bool = False
    is_baseline: bool = False

    @property
    def output_tps_per_gpu(self) -> float | None:
        """Return what the kind held, else what it is expected to hold; None where neither is known."""
        return self.expected.median if self.expected else self.held


def best_of_kinds(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranked: Sequence[str],
    confirmation: Confirmation | None,
    predicted: Sequence[KindPosterior],
) -> list[BestOfKind]:
    """Return every kind with a valid trial or a prediction: the recommended kind first, then the fastest.

    Parameters
    ----------
    study
        The record of the study.
    outcomes
        Each trial once.
    ranked
        Ids of the measured trials, best first.
    confirmation
        The repeats of the best configurations, None without.
    predicted
        What a surrogate expects of each kind; empty for other searches.

    Returns
    -------
    list[BestOfKind]
    """
    kinds = _best_of_groups(study, outcomes, ranked, confirmation, lambda o: kind_label(o, study))
    return _ordered(_with_predictions(kinds, predicted))


def best_of_configurations(
    study: StudyRecord, outcomes: Sequence[Outcome], ranked: Sequence[str], confirmation: Confirmation | None
) -> list[BestOfKind]:
    """Return every configuration with a valid trial, at any rate; parameters as of `best_of_kinds`."""
    return _ordered(
        _best_of_groups(
            study, outcomes, ranked, confirmation, lambda o: formatting.describe_configuration(o, study.space)
        )
    )


def _ordered(kinds: Sequence[BestOfKind]) -> list[BestOfKind]:
    """Return the recommended kind, then the others by what they give."""
    return sorted(kinds, key=lambda kind: (not kind.is_recommended, -(kind.output_tps_per_gpu or 0.0)))


def _with_predictions(kinds: Sequence[BestOfKind], predicted: Sequence[KindPosterior]) -> list[BestOfKind]:
    """Return `kinds` and those that were predicted only, with predictions for all that held nothing.

    A prediction is for the capacity. What held lies below it: at the verified rate, or at the guaranteed one.
    So predictions are scaled by what the recommended kind held, as a share of what is expected of it.
    """
    expected = {each.kind: each.expected_output_tps_per_gpu for each in predicted}
    recommended = next((kind for kind in kinds if kind.is_recommended), None)
    if recommended is None or not recommended.held or recommended.label not in expected:
        return list(kinds)
    scale = recommended.held / expected[recommended.label].median
    measured = {kind.label: kind for kind in kinds}
    held_none = {label: measured.get(label, BestOfKind(label)) for label in expected}
    added = [
        replace(kind, expected=expected[label].scaled(scale))
        for label, kind in held_none.items()
        if kind.held is None
    ]
    return [*(kind for kind in kinds if kind.held is not None or kind.label not in expected), *added]


def _best_of_groups(
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    ranked: Sequence[str],
    confirmation: Confirmation | None,
    label_of: Callable[[Outcome], str | None],
) -> list[BestOfKind]:
    """Return the best trial of each group of valid trials that have one label.

    The first repeat of a confirmed configuration that the study did not measure counts as a trial.
    """
    by_id = {outcome.trial_id: outcome for outcome in outcomes}
    groups: dict[str, list[Outcome]] = {}
    for outcome in (by_id[trial_id] for trial_id in ranked if by_id[trial_id].valid):
        groups.setdefault(label_of(outcome) or formatting.DASH, []).append(outcome)
    configurations = confirmation.configurations if confirmation else ()
    repeated = [each.predicted.outcome for each in configurations if each.predicted]
    for outcome in (outcome for outcome in repeated if outcome.valid):
        groups.setdefault(label_of(outcome) or formatting.DASH, []).append(outcome)
    confirmed = {each.trial_id: each for each in configurations if each.guaranteed_qps}
    recommended = recommended_configuration(study, outcomes, ranked, confirmation)
    trial, baseline = recommended.trial if recommended else None, baseline_trial(study, outcomes)
    return [_best_of(label, group, confirmed, trial, baseline) for label, group in groups.items()]


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
        rates = [o.target_qps for o in group if not o.feasible and o.target_qps]
    above = [qps for qps in rates if not best.feasible or qps > best.offered_qps]
    if not above or not best.output_tps_per_gpu:
        return None
    return best.output_tps_per_gpu / (best.completed_qps or best.offered_qps) * min(above)
