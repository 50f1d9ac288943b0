"""Measure the best configurations of a study on new deployments, and state the rates that they guarantee."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tune.analysis.guaranteed_rates import RemeasuredConfiguration, guarantee_rates
from tune.analysis.repeated_capacities import ShuffleNoise
from tune.backends.base import Backend
from tune.capacity.shuffle_noise import shuffle_noise
from tune.errors import ResumableError
from tune.records.capacity_search import read_capacity
from tune.records.confirmation import Confirmation
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.proposals import Proposal
from tune.spec.confirm_settings import ConfirmSettings
from tune.spec.load import Load
from tune.spec.settings import Settings
from tune.spec.trial import TrialSpec
from tune.study.confirmation_candidates import ConfirmationCandidate
from tune.study.failed_trials import MAX_FAILED_IN_A_ROW, require_harness
from tune.study.listener import SILENT, StudyListener
from tune.study.retries import MAX_FAILED_ATTEMPTS
from tune.study.trial_requests import Overrides, trial_request
from tune.study.trial_runner import TrialRequest, TrialRunner


def remaining_gpu_hours(
    folder: StudyFolder, chosen: Sequence[ConfirmationCandidate], *, rerun: bool
) -> tuple[int, float]:
    """Count the repeats that are still to be measured, and estimate their GPU-hours.

    Parameters
    ----------
    folder
        Folder of the repeats.
    chosen
        The candidates to measure again.
    rerun
        Whether repeats on record are measured again.

    Returns
    -------
    tuple[int, float]
        Number of repeats, and GPU-hours.
    """
    ahead = [
        candidate.gpu_hours
        for candidate in chosen
        for spec in candidate.specs
        if rerun or not _is_done(folder, spec)
    ]
    return len(ahead), sum(ahead)


def _is_done(folder: StudyFolder, spec: TrialSpec) -> bool:
    """Return whether the repeat has an outcome on record other than a failed one."""
    outcome = folder.trial(spec.trial_id).read_outcome()
    return outcome is not None and outcome.status != "failed"


def run_repeats(
    folder: StudyFolder,
    chosen: Sequence[ConfirmationCandidate],
    settings: Settings,
    backend: Backend,
    *,
    overrides: Overrides,
    listener: StudyListener = SILENT,
) -> list[RemeasuredConfiguration]:
    """Measure the repeats that are not on record, each configuration once before any is repeated.

    Parameters
    ----------
    folder
        Folder of the repeats, locked by `open_study`.
    chosen
        The candidates to measure again.
    settings
        The composed configuration of one repeat.
    backend
        Where repeats run.
    overrides
        Returns the overrides that compose a trial; they go on record.
    listener
        Learns what happens.

    Returns
    -------
    list[RemeasuredConfiguration]
        Each candidate with the outcomes of its repeats, in the order of `chosen`.

    Raises
    ------
    ResumableError
        When the GPU-hours would exceed study.max_gpu_hours, or MAX_FAILED_IN_A_ROW repeats fail in whole
        batches.
    """
    runner = TrialRunner(folder, settings, backend, listener)
    costs = {spec.trial_id: candidate.gpu_hours for candidate in chosen for spec in candidate.specs}
    requests = list(_requests(folder, chosen, overrides))
    outcomes: dict[str, Outcome] = {}
    failed = 0
    for start in range(0, len(requests), settings.parallel):
        batch = requests[start : start + settings.parallel]
        require_affordable(folder, batch, costs, settings)
        results = runner.run(batch, settings.rerun)
        for number in sorted(results):
            listener.recorded(results[number])
        outcomes |= {outcome.trial_id: outcome for outcome in results.values()}
        new = [outcome for outcome in results.values() if outcome.trial_id in runner.recorded]
        failed = _failed_in_a_row(new, failed)
    return [
        _remeasured(
            candidate,
            tuple((spec.load, outcomes[spec.trial_id]) for spec in candidate.specs),
            _shuffle_noise(folder, candidate, outcomes, settings),
            overrides,
        )
        for candidate in chosen
    ]


def _remeasured(
    candidate: ConfirmationCandidate,
    repeats: tuple[tuple[Load, Outcome], ...],
    shuffles: ShuffleNoise | None,
    overrides: Overrides,
) -> RemeasuredConfiguration:
    """Return the candidate with its repeats; the first stands for one that the study did not measure."""
    if candidate.unmeasured is None:
        return RemeasuredConfiguration(candidate.trial, repeats, shuffles)
    trial = candidate.unmeasured.as_trial(repeats[0][1], overrides)
    expected = candidate.unmeasured.expected_output_tps_per_gpu
    return RemeasuredConfiguration(trial, repeats, shuffles, expected)


def _failed_in_a_row(new: Sequence[Outcome], failed: int) -> int:
    """Return the number of consecutive failures after the outcomes `new`, with `failed` before them.

    Raises ResumableError from MAX_FAILED_IN_A_ROW on; HarnessFailed where one failed by what all need.
    """
    require_harness(new)
    if any(outcome.status != "failed" for outcome in new):
        return 0
    failed += len(new)
    if failed >= MAX_FAILED_IN_A_ROW:
        raise ResumableError(
            f"{failed} consecutive repeats failed; the cause may affect all repeats: "
            f"{new[-1].reason}\nFix it and run the same command again."
        )
    return failed


def _shuffle_noise(
    folder: StudyFolder,
    candidate: ConfirmationCandidate,
    outcomes: Mapping[str, Outcome],
    settings: Settings,
) -> ShuffleNoise | None:
    """Simulate what a run of the configuration varies by over shuffles, on the rack that a repeat showed.

    Returns None where no repeat has a capacity, or no simulator forecast it.
    """
    calibration = settings.cluster.calibration
    for spec in candidate.specs:
        capacity_qps = outcomes[spec.trial_id].capacity_qps.estimate
        attempt = folder.trial(spec.trial_id).last_attempt()
        record = read_capacity(attempt) if attempt else None
        if capacity_qps and record and record.fitted and calibration:
            return shuffle_noise(spec, calibration.model_copy(update=record.fitted), capacity_qps)
    return None


def _requests(
    folder: StudyFolder, chosen: Sequence[ConfirmationCandidate], overrides: Overrides
) -> Iterator[TrialRequest]:
    """Yield every repeat as a trial of its own, and put new ones on record. None is stopped early."""
    for specs in zip(*(candidate.specs for candidate in chosen), strict=True):
        for candidate, spec in zip(chosen, specs, strict=True):
            yield repeat_request(folder, candidate, spec, overrides)


def repeat_request(
    folder: StudyFolder, candidate: ConfirmationCandidate, spec: TrialSpec, overrides: Overrides
) -> TrialRequest:
    """Return the request to run `spec`, a repeat of `candidate`; a new one goes on record in `folder`."""
    study = folder.read_study()
    assert study is not None
    known = {proposal.trial_id: proposal for proposal in folder.read_proposals()}
    proposal = known.get(spec.trial_id)
    if proposal is None:
        params = candidate.params | {"shuffle_seed": spec.load.shuffle_seed}
        proposal = Proposal(number=len(known), params=params, source="confirm", trial_id=spec.trial_id)
        folder.append_proposal(proposal)
    return trial_request(proposal, spec, overrides, study)


def require_affordable(
    folder: StudyFolder, batch: Sequence[TrialRequest], costs: Mapping[str, float], settings: Settings
) -> None:
    """Raise ResumableError where the batch would exceed study.max_gpu_hours; `costs` are by trial_id."""
    budget = settings.study.max_gpu_hours
    new = [request for request in batch if settings.rerun or not _is_done(folder, request.spec)]
    spent = _gpu_hours(folder)
    ahead = sum(costs[request.spec.trial_id] for request in new)
    if budget is not None and new and spent + ahead > budget:
        raise ResumableError(
            f"The budget of {budget:g} GPU-hours (study.max_gpu_hours) ends the confirmation: {spent:.0f} "
            f"are spent and the next {len(new)} repeats need about {ahead:.0f}. Everything is on record; run "
            "the same command with a larger budget to go on."
        )


def summarise_confirmation(
    study: StudyFolder,
    repeats: StudyFolder,
    name: str,
    candidates: Sequence[RemeasuredConfiguration],
    confirm: ConfirmSettings,
) -> Confirmation:
    """Return the rates that the repeats guarantee, with the GPU-hours of study and repeats.

    Parameters
    ----------
    study, repeats
        Folders of the study and of its repeats.
    name
        Name of the study.
    candidates
        The configurations with the outcomes of their repeats.
    confirm
        The confidence with which rates are guaranteed.

    Returns
    -------
    Confirmation
        Guaranteed rates of the configurations, and GPU-hours of the study and of the repeats.
    """
    return guarantee_rates(
        name,
        candidates,
        confirm.confidence,
        study_gpu_hours=_gpu_hours(study),
        gpu_hours=_gpu_hours(repeats),
    )


def _gpu_hours(folder: StudyFolder) -> float:
    """Return the GPU-hours of all trials on record."""
    return sum(outcome.gpu_hours for outcome in folder.outcomes())


def require_complete(candidates: Sequence[RemeasuredConfiguration]) -> None:
    """Raise ResumableError where a repeat failed."""
    outcomes = [outcome for candidate in candidates for _, outcome in candidate.repeats]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise ResumableError(
            f"{len(failed)} of {len(outcomes)} repeats failed, the last of them: {failed[-1].reason}\nThe "
            "guaranteed rates rest on the others. The same command tries the failed ones again, "
            f"{MAX_FAILED_ATTEMPTS} times in all where jobs outlive it; rerun=true measures every one again."
        )
