"""Measure the accuracy of a winner at its guaranteed rate; it is not confirmed where that is missed."""

from __future__ import annotations

from collections.abc import Sequence

from tune.backends.base import Backend
from tune.errors import ConfigurationError
from tune.records.confirmation import AccuracyCheck, Confirmation
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.confirm_winners import repeat_request, require_affordable
from tune.study.confirmation_candidates import SHUFFLE_SEED_STRIDE, ConfirmationCandidate
from tune.study.listener import SILENT, StudyListener
from tune.study.trial_requests import Overrides
from tune.study.trial_runner import TrialRunner


def require_references(settings: Settings) -> Settings:
    """Return `settings` with an accuracy run where confirm.accuracy asks for one.

    Raises ConfigurationError where the study's load has no reference answers.
    """
    if not settings.confirm.accuracy:
        return settings
    dataset = settings.load.dataset
    if not dataset.holds_prompts:
        raise ConfigurationError(
            f"confirm.accuracy=true: found a study of {dataset.name}, which has no reference answers; "
            "expected one of the benchmark's own prompts (load.dataset.path=FILE.pkl)."
        )
    load = settings.load.model_copy(update={"accuracy": True})
    return settings.model_copy(update={"load": load})


def measure_accuracy(
    folder: StudyFolder,
    confirmation: Confirmation,
    chosen: Sequence[ConfirmationCandidate],
    settings: Settings,
    backend: Backend,
    *,
    overrides: Overrides,
    listener: StudyListener = SILENT,
) -> Confirmation:
    """Run performance and accuracy once more, at the guaranteed rate of the winner.

    Parameters
    ----------
    folder
        Folder of the repeats, locked by `open_study`.
    confirmation
        What the repeats show.
    chosen
        The candidates that were measured again.
    settings
        The composed configuration of one repeat. Without confirm.accuracy only what is on record counts.
    backend
        Where the trial runs.
    overrides
        Returns the overrides that compose a trial; they go on record.
    listener
        Learns what happens.

    Returns
    -------
    Confirmation
        With the accuracy of the winner, and without its guaranteed rate where that is missed or not known.
        Unchanged where no rate is guaranteed.

    Raises
    ------
    ResumableError
        When the GPU-hours would exceed study.max_gpu_hours.
    """
    winner = confirmation.configurations[0]
    if winner.guaranteed_qps is None:
        return confirmation
    candidate = next(each for each in chosen if each.trial_id == winner.trial_id)
    spec = _accuracy_spec(candidate, winner.guaranteed_qps)
    if not settings.confirm.accuracy:
        recorded = _recorded(folder, spec)
        return with_accuracy(confirmation, recorded) if recorded else confirmation
    request = repeat_request(folder, candidate, spec, overrides)
    require_affordable(folder, [request], {spec.trial_id: candidate.gpu_hours}, settings)
    runner = TrialRunner(folder, settings, backend, listener)
    outcome = runner.run([request], settings.rerun)[request.number]
    listener.recorded(outcome)
    spent = sum(each.gpu_hours for each in folder.outcomes())
    return with_accuracy(confirmation.model_copy(update={"gpu_hours": spent}), outcome)


def _accuracy_spec(candidate: ConfirmationCandidate, target_qps: float) -> TrialSpec:
    """Return the candidate's configuration at `target_qps` with an accuracy run, in a shuffle of its own."""
    last = candidate.specs[-1]
    changes = {"accuracy": True, "shuffle_seed": last.load.shuffle_seed + SHUFFLE_SEED_STRIDE}
    return last.model_copy(update={"load": last.load.at(target_qps).model_copy(update=changes)})


def _recorded(folder: StudyFolder, spec: TrialSpec) -> Outcome | None:
    """Return the last trial on record that measured the accuracy of the configuration, at whatever rate."""
    recorded = None
    for trial in folder.trials():
        outcome, measured = trial.read_outcome(), trial.read_spec()
        if outcome is None or outcome.accuracy is None or measured is None:
            continue
        if measured.identity_without_rate == spec.identity_without_rate:
            recorded = outcome
    return recorded


def with_accuracy(confirmation: Confirmation, outcome: Outcome) -> Confirmation:
    """Return `confirmation` with the accuracy that `outcome` measured of its first configuration.

    The configuration loses its guaranteed rate where the accuracy is missed, or was not measured.
    """
    winner, *others = confirmation.configurations
    check = AccuracyCheck(
        trial_id=outcome.trial_id,
        target_qps=outcome.offered_qps,
        slo_met=any(probe.feasible for probe in outcome.probes),
        accuracy=outcome.accuracy,
        reason=None if outcome.accuracy else outcome.reason or "its trial has no accuracy run",
    )
    if check.objection:
        winner = winner.withheld(check.objection)
    return confirmation.model_copy(update={"accuracy": check, "configurations": (winner, *others)})
