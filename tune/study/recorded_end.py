"""Record in study.json why a study ends, and tell whether it may do so before its last trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tune.errors import ResumableError
from tune.records.folders import StudyFolder
from tune.records.study_end import StudyEnd, StudyEndKind
from tune.records.study_record import StudyRecord
from tune.study.proposer import SearchEnd
from tune.study.search_space import number_of_points


class BudgetSpent(ResumableError):
    """Report that the GPU-hours of a study are spent."""


class TooManyFailures(ResumableError):
    """Report that too many trials of a study failed in a row, or the last one."""


class HarnessFailed(ResumableError):
    """Report that what every trial needs is at fault: tune, its load client, a disk, credentials."""


def may_end_early(study: StudyRecord, n_trials: int) -> bool:
    """Return whether a study may end before `n_trials` where none fails: by its gain, points or budget."""
    points = number_of_points(study.space)
    few_points = points is not None and points < n_trials
    return study.search.traits.predicts_gain or few_points or study.max_gpu_hours is not None


@contextmanager
def recorded_end(folder: StudyFolder, search_end: Callable[[], SearchEnd | None]) -> Iterator[None]:
    """Record why the block ends: by itself, or by an exception.

    `search_end` returns why the search proposes nothing more, None where it does. Nothing is recorded where
    the process is killed, or leaves running trials behind (study.once).
    """
    try:
        yield
    except BudgetSpent:
        _record(folder, "budget")
        raise
    except TooManyFailures:
        _record(folder, "failures")
        raise
    except HarnessFailed:
        _record(folder, "harness")
        raise
    except KeyboardInterrupt:
        _record(folder, "interrupted")
        raise
    end = search_end()
    if end is None:
        _record(folder, "trials")
    else:
        _record(folder, end.kind, end.expected_gain_frac)


def _record(folder: StudyFolder, kind: StudyEndKind, expected_gain_frac: float | None = None) -> None:
    """Write the end into study.json."""
    study, outcomes, proposals = folder.read_study(), folder.outcomes(), folder.read_proposals()
    assert study is not None
    proposed = {proposal.trial_id for proposal in proposals}
    recorded = [outcome for outcome in outcomes if outcome.trial_id in proposed]
    by_id = {outcome.trial_id for outcome in recorded}
    end = StudyEnd(
        kind=kind,
        proposed=sum(proposal.trial_id in by_id for proposal in proposals),
        configurations=len(recorded),
        infeasible=sum(outcome.status == "infeasible" for outcome in recorded),
        expected_gain_frac=expected_gain_frac,
    )
    folder.write_study(study.model_copy(update={"ended": end}))
