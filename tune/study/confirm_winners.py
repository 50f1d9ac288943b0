"""The best configurations of a study once more: which, on what terms, and what they came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from tune.analysis.guaranteed_rates import RemeasuredConfiguration, guarantee_rates
from tune.analysis.ranking import rank
from tune.backends.base import Backend
from tune.errors import ConfigurationError, NegativeResult, ResumableError
from tune.records.confirmation import SUFFIX, Confirmation, confirm_overrides
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import read_posterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.confirm_settings import ConfirmSettings
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.identity import require_same_backend, study_record
from tune.study.loop import MAX_FAILED_IN_A_ROW, Overrides, Recorded, trial_request
from tune.study.trial_runner import MAX_FAILED_ATTEMPTS, TrialRequest, TrialRunner

SHUFFLE_SEED_STRIDE = 100
"""Between the orders of lengths of the repeats; a probe's further orders lie less apart."""

RUNS_A_SEARCH = 1.5
"""What the search for a boundary costs, in runs of full length; source: docs/benchmarks.md, the mean."""


@dataclass(frozen=True)
class ConfirmationCandidate:
    """A trial of the study, and its configuration as it is to be measured again, once each."""

    trial: Outcome
    specs: tuple[TrialSpec, ...]

    @property
    def gpu_hours(self) -> float:
        """What one repeat is expected to cost, by what the trial did."""
        last = self.trial.attempts[-1].gpu_hours if self.trial.attempts else 0.0
        return last if self.trial.capacity_qps.estimate is not None else RUNS_A_SEARCH * last


def select_candidates(
    folder: StudyFolder, study: StudyRecord, confirm: ConfirmSettings
) -> tuple[ConfirmationCandidate, ...]:
    """The best feasible configurations of `study`, apart in more than their rate; fewer where it has fewer.

    Where its search learned the rack, best is what is now expected to be, not what was measured highest.
    Raises ConfigurationError where no boundary can be asked for, NegativeResult where no trial is feasible, ResumableError for
    a damaged record.
    """
    if study.name.endswith(SUFFIX):
        raise ConfigurationError(
            f"study.name={study.name}: found the repeats of a confirmation; expected the study that they "
            f"confirm, study.name={study.name.removesuffix(SUFFIX)}."
        )
    outcomes = {outcome.trial_id: outcome for outcome in folder.outcomes()}
    ranked = rank(list(outcomes.values()), read_posterior(folder.root))
    best = [row["trial_id"] for row in ranked if row["feasible"]]
    if not best:
        raise NegativeResult(
            f"No configuration of study {study.name} holds its SLO: there is nothing to confirm. "
            f"action=report study.name={study.name} says how far each missed."
        )
    specs = {trial.root.name: trial.read_spec() for trial in folder.trials()}
    used = {spec.load.shuffle_seed for spec in specs.values() if spec}
    chosen: dict[str, ConfirmationCandidate] = {}
    for trial_id in best:
        spec = specs.get(trial_id)
        if spec is None:
            path = folder.trial(trial_id).root / "spec.json"
            raise ResumableError(f"{path}: found none; expected the configuration of the trial. Restore it.")
        repeats = tuple(islice(_repeats(spec, used), confirm.repeats))
        chosen.setdefault(_apart_from_the_rate(spec), ConfirmationCandidate(outcomes[trial_id], repeats))
        if len(chosen) == confirm.configurations:
            break
    return tuple(chosen.values())


def _repeats(spec: TrialSpec, used: set[int]) -> Iterator[TrialSpec]:
    """`spec` in search of its boundary, in orders of lengths that no trial of the study had."""
    if not spec.slo.limits:
        raise ConfigurationError(
            "slo: found every limit of this study lifted, so no rate is the highest that holds them; "
            "expected a study with a limit on a latency."
        )
    for further in count(1):
        seed = spec.load.shuffle_seed + SHUFFLE_SEED_STRIDE * further
        if seed not in used:
            load = spec.load.model_copy(update={"mode": "capacity", "shuffle_seed": seed})
            yield spec.model_copy(update={"load": load})


def _apart_from_the_rate(spec: TrialSpec) -> str:
    load = spec.load.at(1.0).model_copy(update={"rate_range_qps": None, "shuffle_seed": 0})
    return spec.model_copy(update={"load": load}).canonical()


def require_confirmable(study: StudyRecord, settings: Settings, words: Sequence[str]) -> None:
    """Raises ConfigurationError where the command asks for another place than the study's, or says what a trial of it
    should be: that is on record. `words`: the overrides of the command."""
    require_same_backend(study, settings, confirm_overrides(study))
    of_trials = [
        word
        for word in words
        if word not in study.command
        and word.lstrip("+~").partition("=")[0].partition(".")[0] in TrialSpec.model_fields
    ]
    if of_trials:
        raise ConfigurationError(
            f"{' '.join(of_trials)}: what is confirmed stands in the records of study {study.name}, and the "
            "command does not change it; expected settings of confirm, cluster and study only."
        )


def settings_for(chosen: ConfirmationCandidate, settings: Settings) -> Settings:
    """`settings` of one repeat of it, without a sweep."""
    trial = {name: getattr(chosen.specs[0], name) for name in TrialSpec.model_fields}
    return settings.model_copy(update={**trial, "sweep": None})


def pin_repeats(
    study: StudyRecord, chosen: Sequence[ConfirmationCandidate], settings: Settings, words: Sequence[str]
) -> StudyRecord:
    """The record of the study that holds the repeats of `chosen`."""
    asked = study_record(settings_for(chosen[0], settings), study.name + SUFFIX, words)
    question = f"What do the best configurations of {study.name} hold on new deployments?"
    return asked.model_copy(update={"question": question, "n_trials": sum(len(one.specs) for one in chosen)})


def gpu_hours_ahead(
    folder: StudyFolder, chosen: Sequence[ConfirmationCandidate], *, rerun: bool
) -> tuple[int, float]:
    """How many repeats are not on record in `folder`, and about what they will cost."""
    ahead = [one.gpu_hours for one in chosen for spec in one.specs if rerun or not _is_done(folder, spec)]
    return len(ahead), sum(ahead)


def _is_done(folder: StudyFolder, spec: TrialSpec) -> bool:
    outcome = folder.trial(spec.trial_id).read_outcome()
    return outcome is not None and outcome.status != "failed"


def run_repeats(
    folder: StudyFolder,
    chosen: Sequence[ConfirmationCandidate],
    settings: Settings,
    backend: Backend,
    *,
    overrides: Overrides,
    recorded: Recorded,
) -> list[RemeasuredConfiguration]:
    """Measure the repeats that are not on record, each configuration once before any is repeated.

    `recorded` hears of every repeat, also of those on record. Raises ResumableError when the GPU-hours would go
    beyond study.max_gpu_hours, or when MAX_FAILED_IN_A_ROW repeats fail in whole batches.
    """
    batch = TrialRunner(folder, settings.cluster, backend, settings.study.once)
    costs = {spec.trial_id: one.gpu_hours for one in chosen for spec in one.specs}
    jobs = list(_jobs(folder, chosen, overrides))
    outcomes: dict[str, Outcome] = {}
    failed = 0
    for start in range(0, len(jobs), settings.parallel):
        part = jobs[start : start + settings.parallel]
        _require_affordable(folder, part, costs, settings)
        done = batch.run(part, settings.rerun)
        for number in sorted(done):
            recorded(done[number])
        outcomes |= {outcome.trial_id: outcome for outcome in done.values()}
        new = [outcome for outcome in done.values() if outcome.trial_id in batch.recorded]
        all_failed = all(outcome.status == "failed" for outcome in new)
        failed = failed + len(new) if all_failed else 0
        if failed >= MAX_FAILED_IN_A_ROW:
            raise ResumableError(
                f"{failed} repeats in a row failed; something may be broken that another one would meet too: "
                f"{new[-1].reason}\nMend it and run the same command again."
            )
    return [
        RemeasuredConfiguration(one.trial, tuple((spec.load, outcomes[spec.trial_id]) for spec in one.specs))
        for one in chosen
    ]


def _jobs(
    folder: StudyFolder, chosen: Sequence[ConfirmationCandidate], overrides: Overrides
) -> Iterator[TrialRequest]:
    """Every repeat as a trial of its own, proposed when it first comes up. They have nothing to beat."""
    study = folder.read_study()
    assert study is not None
    known = {proposal.trial_id: proposal for proposal in folder.read_proposals()}
    for specs in zip(*(one.specs for one in chosen), strict=True):
        for one, spec in zip(chosen, specs, strict=True):
            proposal = known.get(spec.trial_id)
            if proposal is None:
                params = dict(one.trial.provenance.get("params", {})) | {
                    "shuffle_seed": spec.load.shuffle_seed
                }
                proposal = Proposal(
                    number=len(known), params=params, source="confirm", trial_id=spec.trial_id
                )
                folder.append_proposal(proposal)
                known[spec.trial_id] = proposal
            yield trial_request(proposal, spec, overrides, study)


def _require_affordable(
    folder: StudyFolder, jobs: Sequence[TrialRequest], costs: dict[str, float], settings: Settings
) -> None:
    budget = settings.study.max_gpu_hours
    new = [job for job in jobs if settings.rerun or not _is_done(folder, job.spec)]
    spent = sum(outcome.gpu_hours for outcome in folder.outcomes())
    ahead = sum(costs[job.spec.trial_id] for job in new)
    if budget is not None and new and spent + ahead > budget:
        raise ResumableError(
            f"The budget of {budget:g} GPU-hours (study.max_gpu_hours) ends the confirmation: {spent:.0f} "
            f"are spent and the next {len(new)} repeats need about {ahead:.0f}. Everything is on record; run "
            "the same command with a larger budget to go on."
        )


def confirmed(
    study: StudyFolder,
    repeats: StudyFolder,
    name: str,
    candidates: Sequence[RemeasuredConfiguration],
    confirm: ConfirmSettings,
) -> Confirmation:
    """What can be said of `candidates`, and what study and repeats cost."""
    return guarantee_rates(
        name,
        candidates,
        confirm.confidence,
        study_gpu_hours=_gpu_hours(study),
        gpu_hours=_gpu_hours(repeats),
    )


def _gpu_hours(folder: StudyFolder) -> float:
    return sum(outcome.gpu_hours for outcome in folder.outcomes())


def require_complete(candidates: Sequence[RemeasuredConfiguration]) -> None:
    """Raises ResumableError where a repeat failed."""
    outcomes = [outcome for candidate in candidates for _, outcome in candidate.repeats]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise ResumableError(
            f"{len(failed)} of {len(outcomes)} repeats failed, the last of them: {failed[-1].reason}\nWhat "
            "is stated rests on the others. The same command tries the failed ones again, "
            f"{MAX_FAILED_ATTEMPTS} times in all where jobs outlive it; rerun=true measures every one again."
        )
