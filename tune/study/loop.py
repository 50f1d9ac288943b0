"""Run a study in batches: suggest points, run their trials, record and observe the outcomes by number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tune.backends.base import Backend
from tune.core.locks import is_file_locked, lock_file
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import write_posterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.settings import Settings
from tune.study.adoption import adopt_trials
from tune.study.budget import check_budget, remaining_trials
from tune.study.identity import merge_on_resume, with_recorded_range
from tune.study.listener import SILENT, StudyListener
from tune.study.proposer import Proposer
from tune.study.recorded_end import TooManyFailures, recorded_end
from tune.study.registry import SearchProblem, check_search
from tune.study.trial_requests import Overrides, TrialRequests, trial_request
from tune.study.trial_runner import TrialRequest, TrialRunner

MAX_FAILED_IN_A_ROW = 2
"""Number of consecutive failures that end a study: one may be a broken node, two have a common cause."""

_LOCK_FILE = ".lock"


@contextmanager
def open_study(root: Path, requested: StudyRecord, *, keeps_parallel: bool = False) -> Iterator[StudyFolder]:
    """Lock the folder of a study, check its record against `requested`, and yield it.

    Parameters
    ----------
    root
        Folder of the study; it is made where it is missing.
    requested
        Record of the study that the command describes. A recorded study is resumed where its pinned settings
        are equal.
    keeps_parallel
        Whether a recorded study keeps its number of trials at once: study.parallel is null.

    Yields
    ------
    StudyFolder
        The folder, locked.

    Raises
    ------
    ConfigurationError
        When the folder cannot be written, another process runs the study, or the record has other settings.
    ResumableError
        When study.json is damaged.
    """
    folder = StudyFolder(root)
    in_use = (
        f"{root}: another process is running this study; expected to be the only one. Wait for it, "
        "or give this study a name of its own (study.name=NAME)."
    )
    with lock_file(root / _LOCK_FILE, in_use):
        recorded = folder.read_study()
        if recorded and keeps_parallel:
            requested = requested.model_copy(update={"parallel": recorded.parallel})
        record = requested
        if recorded:
            record = adopt_trials(folder, recorded, merge_on_resume(recorded, requested))
        if record != recorded:
            folder.write_study(record)
        yield folder


def is_running(root: Path) -> bool:
    """Return whether a process runs the study in the folder `root`.

    Raises ConfigurationError where the file system has no locks.
    """
    return is_file_locked(root / _LOCK_FILE)


def require_search(settings: Settings) -> None:
    """Raise ConfigurationError when the search cannot cover the space or its first point fits no trial."""
    assert settings.sweep is not None
    check_search(
        SearchProblem(
            settings.sweep.space,
            settings.search,
            settings.study.seed,
            settings=settings,
            sweep=settings.sweep,
        )
    )


def run_trial(
    folder: StudyFolder,
    settings: Settings,
    backend: Backend,
    overrides: Overrides,
    listener: StudyListener = SILENT,
) -> tuple[Outcome, bool]:
    """Measure the configuration as composed, as a study of one trial.

    Parameters
    ----------
    folder
        Folder of the study, locked by `open_study`.
    settings
        The composed configuration, without a sweep.
    backend
        Where the trial runs.
    overrides
        Returns the overrides that compose the trial; they go on record.
    listener
        Learns what happens to the trial.

    Returns
    -------
    tuple[Outcome, bool]
        The outcome, and whether it is new; False when it was already on record.
    """
    spec = settings.trial_spec
    runner = TrialRunner(folder, settings.cluster, backend, settings.study.once, listener)
    known = {proposal.trial_id: proposal for proposal in folder.read_proposals()}
    proposal = known.get(spec.trial_id) or Proposal(
        number=len(known), params={}, source="command", trial_id=spec.trial_id
    )
    if spec.trial_id not in known:
        folder.append_proposal(proposal)
    study = folder.read_study()
    assert study is not None
    outcome = runner.run([trial_request(proposal, spec, overrides, study)], settings.rerun)[proposal.number]
    folder.write_study(study.model_copy(update={"n_trials": len(folder.read_proposals())}))
    return outcome, outcome.trial_id in runner.recorded


def run_study(
    folder: StudyFolder,
    settings: Settings,
    backend: Backend,
    overrides: Overrides,
    listener: StudyListener = SILENT,
    *,
    batch_recorded: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Run the study to its last trial, from wherever its record ends.

    Parameters
    ----------
    folder
        Folder of the study, locked by `open_study`.
    settings
        The composed configuration, with a sweep.
    backend
        Where trials run.
    overrides
        Returns the overrides that compose a trial; they go on record.
    listener
        Learns what happens in the study.
    batch_recorded
        Is called after every batch, when its outcomes and what the search learned are on record.

    Returns
    -------
    list[Outcome]
        Outcomes by number.

    Raises
    ------
    ResumableError
        When the GPU-hours would exceed the budget, when MAX_FAILED_IN_A_ROW trials fail in whole batches, or
        when the last trial fails.
    """
    study, sweep = folder.read_study(), settings.sweep
    assert study is not None
    assert sweep is not None
    settings = with_recorded_range(settings, study)
    runner = TrialRunner(folder, settings.cluster, backend, settings.study.once, listener)
    outcomes: dict[int, Outcome] = {}
    failed, paid = 0, folder.outcomes(aside=True)
    with recorded_end(folder, lambda: source.ended):
        source = TrialRequests(folder, settings, sweep, study, overrides, prepared=listener.prepared)
        schedule = source.numbers(settings.study.n_trials or study.n_trials)
        for start in range(0, len(schedule), study.parallel):
            numbers, earlier = schedule[start : start + study.parallel], list(outcomes.values())
            after = len(schedule) - start - len(numbers)
            following = remaining_trials(after, len(numbers), study.max_gpu_hours, [*paid, *earlier])
            requests: Iterable[TrialRequest] = source.requests(numbers, earlier, following)
            if study.max_gpu_hours is not None:
                requests = check_budget(study.max_gpu_hours, list(requests), [*paid, *earlier], settings)
            batch = runner.run(requests, settings.rerun)
            if not batch:
                break
            for number in sorted(batch):
                source.proposer.observe(number, batch[number])
                listener.recorded(batch[number])
            outcomes |= batch
            _record_posterior(folder, source.proposer, outcomes)
            batch_recorded()
            failed = _failed_in_a_row(batch, failed, schedule[-1])
    return [outcomes[number] for number in sorted(outcomes)]


def _record_posterior(folder: StudyFolder, proposer: Proposer, outcomes: Mapping[int, Outcome]) -> None:
    """Write what the search learned from `outcomes`, if it keeps a posterior."""
    posterior = proposer.summarise({number: outcome.trial_id for number, outcome in outcomes.items()})
    if posterior:
        write_posterior(folder.root, posterior)


def _failed_in_a_row(batch: Mapping[int, Outcome], failed: int, last: int) -> int:
    """Return the number of consecutive failures after `batch`, with `failed` before it.

    Raises TooManyFailures where they end the study: too many in a row, or `last`, its last trial, among them.
    """
    if any(outcome.status != "failed" for outcome in batch.values()):
        return 0
    failed += len(batch)
    if failed >= MAX_FAILED_IN_A_ROW or max(batch) == last:
        raise TooManyFailures(
            f"{failed} consecutive trials failed; the cause may affect all trials: "
            f"{batch[max(batch)].reason}\nFix it and run the same command again."
        )
    return failed
