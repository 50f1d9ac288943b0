"""Choose the configurations of a study to confirm, and describe the study of their repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from tune.analysis.kinds_to_confirm import kinds_to_confirm
from tune.analysis.ranking import rank
from tune.errors import ConfigurationError, NegativeResult
from tune.records.confirmation import SUFFIX, confirm_overrides
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary, read_posterior
from tune.records.study_record import StudyRecord
from tune.spec.confirm_settings import ConfirmSettings
from tune.spec.kind import kind_of
from tune.spec.settings import Settings
from tune.spec.space import Value
from tune.spec.trial import TrialSpec
from tune.study.budget import RUNS_PER_CAPACITY_SEARCH
from tune.study.identity import require_same_backend, study_record
from tune.study.unmeasured_kinds import UnmeasuredKind, unmeasured_kinds

SHUFFLE_SEED_STRIDE = 100
"""Distance between the shuffle seeds of two repeats; the extra shuffles of a probe lie less far apart."""


@dataclass(frozen=True)
class ConfirmationCandidate:
    """Hold a trial of the study, and the specs of the repeats that measure its configuration again.

    For a configuration that the study did not measure, `unmeasured` says what it is and what is expected of
    it; `trial` is then the best one of the study, which tells what a repeat costs.
    """

    trial: Outcome
    specs: tuple[TrialSpec, ...]
    unmeasured: UnmeasuredKind | None = None

    @property
    def trial_id(self) -> str:
        """Return the id of the configuration as a trial of the study."""
        return self.unmeasured.posterior.trial_id if self.unmeasured else self.trial.trial_id

    @property
    def params(self) -> dict[str, Value]:
        """Return the point of the configuration, empty where none is on record."""
        return dict(
            (self.unmeasured.posterior.params or {})
            if self.unmeasured
            else self.trial.provenance.get("params", {})
        )

    @property
    def gpu_hours(self) -> float:
        """Estimate the GPU-hours of one repeat from the cost of the trial."""
        last = self.trial.attempts[-1].gpu_hours if self.trial.attempts else 0.0
        return last if self.trial.capacity_qps.estimate is not None else RUNS_PER_CAPACITY_SEARCH * last


def select_candidates(
    folder: StudyFolder, study: StudyRecord, confirm: ConfirmSettings
) -> tuple[ConfirmationCandidate, ...]:
    """Return the best configurations of `study`, one of each kind: feasible ones, and predicted ones.

    Parameters
    ----------
    folder, study
        Folder and record of the study.
    confirm
        How many configurations, and how many repeats of each.

    Returns
    -------
    tuple[ConfirmationCandidate, ...]
        The best measured one first, then in the order of `rank`: where the search fitted a surrogate, by
        expected instead of measured capacity. A kind is a split with its parallelism. Kinds that such a
        search did not measure, and whose interval reaches that of the best, stand where they are expected to
        rank. Fewer than `confirm.configurations` where there are fewer kinds. Where all trials have one kind
        and no other is in reach, configurations that differ in more than their rate are of different kinds.

    Raises
    ------
    ConfigurationError
        Where no capacity can be searched for, because no limit is set, or the study is a confirmation itself.
    NegativeResult
        Where no trial is feasible.
    ResumableError
        Where a record is damaged, or the configuration of a trial is missing and cannot be composed again.
    """
    if study.name.endswith(SUFFIX):
        raise ConfigurationError(
            f"study.name={study.name}: found the repeats of a confirmation; expected the study that they "
            f"confirm, study.name={study.name.removesuffix(SUFFIX)}."
        )
    outcomes = {outcome.trial_id: outcome for outcome in folder.outcomes()}
    posterior = read_posterior(folder.root)
    best = _feasible_ids(study, list(outcomes.values()), posterior)
    specs = {trial.root.name: spec for trial in folder.trials() if (spec := trial.read_spec())}
    specs |= {trial_id: folder.spec_of(outcomes[trial_id]) for trial_id in best}
    used = {spec.load.shuffle_seed for spec in specs.values()}

    def candidate(trial_id: str, unmeasured: UnmeasuredKind | None = None) -> ConfirmationCandidate:
        spec = unmeasured.spec if unmeasured else specs[trial_id]
        repeats = tuple(islice(_repeats(spec, used), confirm.repeats))
        return ConfirmationCandidate(outcomes[trial_id], repeats, unmeasured)

    measured = [candidate(trial_id) for trial_id in best]
    held = _first_by(measured, kind_of)
    order = kinds_to_confirm(posterior, outcomes[best[0]], list(held))
    others = unmeasured_kinds(study, posterior, set(order) - set(held))
    if not others and len({kind_of(spec) for spec in specs.values()}) == 1:
        chosen = list(_first_by(measured, lambda spec: spec.identity_without_rate).values())
    else:
        known = held | {kind: candidate(best[0], other) for kind, other in others.items()}
        chosen = [known[kind] for kind in order if kind in known]
    return tuple(chosen[: confirm.configurations])


def _feasible_ids(
    study: StudyRecord, outcomes: Sequence[Outcome], posterior: PosteriorSummary | None
) -> list[str]:
    """Return the ids of the feasible trials, best first. Raises NegativeResult where there are none."""
    feasible = [row["trial_id"] for row in rank(outcomes, posterior) if row["feasible"]]
    if not feasible:
        raise NegativeResult(
            f"No configuration of study {study.name} holds its SLO: there is nothing to confirm. "
            f"action=report study.name={study.name} says how far each missed."
        )
    return feasible


def _first_by(
    candidates: Sequence[ConfirmationCandidate], key: Callable[[TrialSpec], str]
) -> dict[str, ConfirmationCandidate]:
    """Return the first candidate of each `key` of its configuration."""
    first: dict[str, ConfirmationCandidate] = {}
    for candidate in candidates:
        first.setdefault(key(candidate.specs[0]), candidate)
    return first


def _repeats(spec: TrialSpec, used: set[int]) -> Iterator[TrialSpec]:
    """Yield capacity searches of `spec` under shuffle seeds that no trial of the study `used`."""
    if not spec.slo.limits:
        raise ConfigurationError(
            "slo: found every limit of this study lifted, so no rate is the highest that holds them; "
            "expected a study with a limit on a latency."
        )
    for repeat in count(1):
        seed = spec.load.shuffle_seed + SHUFFLE_SEED_STRIDE * repeat
        if seed not in used:
            again = {"mode": "capacity", "shuffle_seed": seed, "accuracy": False}
            load = spec.load.model_copy(update=again)
            yield spec.model_copy(update={"load": load})


def require_confirmable(study: StudyRecord, settings: Settings, command: Sequence[str]) -> None:
    """Check that a command can confirm the study: it runs on the study's backend and changes no trial.

    Parameters
    ----------
    study
        Record of the study to confirm.
    settings
        The composed configuration of the command.
    command
        Overrides of the command, as typed.

    Raises
    ------
    ConfigurationError
        Where the backend differs from the study's, its loop is closed, or an override changes a trial: trials
        are taken from the record.
    """
    if study.loop == "closed":
        raise ConfigurationError(
            f"confirm: study {study.name} has load.mode=concurrency; expected a study at rates, since a "
            "guaranteed rate is one at which queries are sent, whatever becomes of the answers. Measure the "
            "configurations with load.mode=capacity under another study.name, and confirm that study."
        )
    require_same_backend(study, settings, confirm_overrides(study))
    of_trials = [
        override
        for override in command
        if override not in study.command
        and override.lstrip("+~").partition("=")[0].partition(".")[0] in TrialSpec.model_fields
    ]
    if of_trials:
        raise ConfigurationError(
            f"{' '.join(of_trials)}: what is confirmed stands in the records of study {study.name}, and the "
            "command does not change it; expected settings of confirm, cluster and study only."
        )


def settings_for(chosen: ConfirmationCandidate, settings: Settings) -> Settings:
    """Return `settings` with the trial of the candidate's first repeat, without a sweep."""
    trial = {name: getattr(chosen.specs[0], name) for name in TrialSpec.model_fields}
    return settings.model_copy(update={**trial, "sweep": None})


def pin_repeats(
    study: StudyRecord, chosen: Sequence[ConfirmationCandidate], settings: Settings, command: Sequence[str]
) -> StudyRecord:
    """Return the record of the study that holds the repeats.

    Parameters
    ----------
    study
        Record of the study to confirm.
    chosen
        The candidates to measure again.
    settings, command
        The composed configuration of the command, and its overrides as typed.

    Returns
    -------
    StudyRecord
        The record of a study of single trials, one for each repeat, named after `study` with SUFFIX.
    """
    record = study_record(settings_for(chosen[0], settings), study.name + SUFFIX, command)
    question = f"What do the best configurations of {study.name} hold on new deployments?"
    n_trials = sum(len(candidate.specs) for candidate in chosen) + settings.confirm.accuracy
    return record.model_copy(update={"question": question, "n_trials": n_trials})
