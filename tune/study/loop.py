"""Run a study in batches: suggest points, run their trials, record and observe the outcomes by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tune.backends.base import Backend
from tune.core.locks import is_file_locked, lock_file
from tune.records.folders import StudyFolder
from tune.records.outcome import LATENCY_FIELDS, Outcome
from tune.records.posterior_summary import write_posterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.settings import Settings
from tune.study.budget import remaining_trials
from tune.study.corrected_sweep import keep_points_of_sweep
from tune.study.failed_trials import MAX_FAILED_IN_A_ROW, require_harness
from tune.study.identity import merge_on_resume, with_recorded_range
from tune.study.listener import SILENT, StudyListener
from tune.study.proposer import Proposer
from tune.study.recorded_end import TooManyFailures, recorded_end
from tune.study.registry import SEARCH_METHODS, SearchProblem, check_search
from tune.study.trial_requests import Overrides, TrialRequests, trial_request
from tune.study.trial_runner import TrialRunner

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
    in_use = (
        f"{root}: another process is running this study; expected to be the only one. Wait for it, "
        "or give this study a name of its own (study.name=NAME)."
    )
    with lock_file(root / _LOCK_FILE, in_use) as lock:
        folder = StudyFolder(root, lock.require)
        recorded = folder.read_study()
        if recorded and keeps_parallel:
            requested = requested.model_copy(update={"parallel": recorded.parallel})
        record = requested
        if recorded:
            record = keep_points_of_sweep(folder, recorded, merge_on_resume(recorded, requested))
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
    runner = TrialRunner(folder, settings, backend, listener)
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
        Is called after every batch with a new outcome, when that and what the search learned are on record.

    Returns
    -------
    list[Outcome]
        Outcomes by number.

    Raises
    ------
    ResumableError
        Where the budget is spent, MAX_FAILED_IN_A_ROW trials fail in whole batches, or the last trial fails.
    """
    study = folder.read_study()
    assert study is not None
    settings = with_recorded_range(settings, study)
    finished = _finished(folder, study, settings)
    if finished:
        with recorded_end(folder, lambda: None):
            for outcome in finished:
                listener.recorded(outcome)
        return finished
    runner = TrialRunner(folder, settings, backend, listener)
    return _run_batches(folder, settings, runner, overrides, listener=listener, batch_recorded=batch_recorded)


def _run_batches(
    folder: StudyFolder,
    settings: Settings,
    runner: TrialRunner,
    overrides: Overrides,
    *,
    listener: StudyListener,
    batch_recorded: Callable[[], None],
) -> list[Outcome]:
    """Run batch after batch, each suggested with the outcomes of those before; return outcomes by number."""
    study, sweep = folder.read_study(), settings.sweep
    assert study is not None
    assert sweep is not None
    outcomes: dict[int, Outcome] = {}
    failed, paid = 0, folder.outcomes(aside=True)
    with recorded_end(folder, lambda: source.ended):
        source = TrialRequests(folder, settings, sweep, study, overrides, prepared=listener.prepared)
        schedule = source.numbers(settings.study.n_trials or study.n_trials)
        for numbers, after in _batches(schedule, study.parallel):
            earlier = tuple(outcomes.values())
            spent = paid + earlier
            following = remaining_trials(after, len(numbers), study.max_gpu_hours, spent)
            requests = source.requests(numbers, earlier, following)
            batch = runner.run(requests, settings.rerun)
            if not batch:
                break
            outcomes |= {number: _small(outcome) for number, outcome in batch.items()}
            _learn(folder, source.proposer, batch, outcomes, listener)
            if any(outcome.trial_id in runner.recorded for outcome in batch.values()):
                batch_recorded()
            failed = _failed_in_a_row(batch, failed, schedule[-1])
    by_id = {outcome.trial_id: outcome for outcome in folder.outcomes()}
    return [by_id[outcomes[number].trial_id] for number in sorted(outcomes)]


def _small(outcome: Outcome) -> Outcome:
    """Return an outcome without what the loop never asks for again, which takes most of its memory."""
    latencies = dict.fromkeys(LATENCY_FIELDS)
    details = dict.fromkeys(("breakdown", "spread", "bottleneck", "model_error", "accuracy"))
    several = dict.fromkeys(("probes", "attempts", "forecast", "checks"), ())
    return outcome.model_copy(update={**latencies, **details, **several, "provenance": {}})


def _finished(folder: StudyFolder, study: StudyRecord, settings: Settings) -> list[Outcome]:
    """Return the outcomes of a study whose planned trials are all on record; none where work is left.

    Work is also an attempt that no outcome counts, and the posterior of a search that keeps one.
    """
    n_trials = settings.study.n_trials or study.n_trials
    planned = sorted(folder.read_proposals(), key=lambda proposal: proposal.number)[:n_trials]
    if settings.rerun or SEARCH_METHODS[study.search.name or ""].has_posterior or len(planned) < n_trials:
        return []
    by_id = {outcome.trial_id: outcome for outcome in folder.outcomes() if outcome.status != "failed"}
    if any(
        proposal.trial_id not in by_id
        or len(folder.trial(proposal.trial_id).attempts()) > len(by_id[proposal.trial_id].attempts)
        for proposal in planned
    ):
        return []
    return [by_id[proposal.trial_id] for proposal in planned]


def _batches(numbers: Sequence[int], size: int) -> Iterator[tuple[Sequence[int], int]]:
    """Yield the trial numbers of each batch, and how many trials follow it."""
    for start in range(0, len(numbers), size):
        batch = numbers[start : start + size]
        yield batch, len(numbers) - start - len(batch)


def _learn(
    folder: StudyFolder,
    proposer: Proposer,
    batch: Mapping[int, Outcome],
    outcomes: Mapping[int, Outcome],
    listener: StudyListener,
) -> None:
    """Let the search observe a batch, and record the posterior of all `outcomes` if it keeps one."""
    for number in sorted(batch):
        proposer.observe(number, batch[number])
        listener.recorded(batch[number])
    posterior = proposer.summarise({number: outcome.trial_id for number, outcome in outcomes.items()})
    if posterior:
        write_posterior(folder.root, posterior)


def _failed_in_a_row(batch: Mapping[int, Outcome], failed: int, last: int) -> int:
    """Return the number of consecutive failures after `batch`, with `failed` before it.

    Raises TooManyFailures where they end the study: too many in a row, or `last`, its last trial, among them;
    HarnessFailed where one failed by what every trial needs.
    """
    require_harness(batch.values())
    if any(outcome.status != "failed" for outcome in batch.values()):
        return 0
    failed += len(batch)
    if failed >= MAX_FAILED_IN_A_ROW or max(batch) == last:
        raise TooManyFailures(
            f"{failed} consecutive trials failed; the cause may affect all trials: "
            f"{batch[max(batch)].reason}\nFix it and run the same command again."
        )
    return failed
