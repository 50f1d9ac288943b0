"""Keep the trials of a study that are points of its corrected sweep, and leave the others aside."""

from __future__ import annotations

from tune.records.folders import StudyFolder
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.bind import Point, bind_point, contains, locate_point
from tune.spec.space import Sweep
from tune.spec.trial import TrialSpec

_OUTSIDE = ("command", "confirm")
"""Sources of trials that no sweep proposed: they always count."""


def keep_points_of_sweep(folder: StudyFolder, recorded: StudyRecord, record: StudyRecord) -> StudyRecord:
    """Return `record` with the trials left aside that are no points of its sweep.

    Parameters
    ----------
    folder
        Folder of the study. Where the dimensions of the sweep are others, a trial that stays gets a further
        line in proposals.jsonl and other parameters in its outcome; nothing is deleted.
    recorded
        Record of the study until now.
    record
        Record of the study from now on, with the same question.

    Returns
    -------
    StudyRecord
        The record, with `aside`. It is unchanged where the sweep is the recorded one.
    """
    proposals = [p for p in folder.read_proposals(with_aside=True) if p.source not in _OUTSIDE]
    current = [proposal for proposal in proposals if proposal.trial_id not in recorded.aside]
    if _sweep_of(record) == _sweep_of(recorded) and all(_fits(proposal, record) for proposal in current):
        return record.model_copy(update={"aside": recorded.aside})
    base, sweep = record.base_spec, record.sweep
    assert base is not None
    assert sweep is not None
    aside = []
    for proposal in proposals:
        spec = folder.trial(proposal.trial_id).read_spec()
        point = None if spec is None else _point_of(spec, base, sweep, proposal)
        if point is None:
            aside.append(proposal.trial_id)
        elif point != proposal.params:
            _change_params(folder, proposal, point)
    return record.model_copy(update={"aside": tuple(dict.fromkeys(aside))})


def describe_correction(before: StudyRecord | None, folder: StudyFolder) -> str | None:
    """Return how many trials a corrected sweep kept and left aside; None where no sweep changed.

    `before` is the record of the study until now, None for a new study.
    """
    after = folder.read_study()
    if before is None or after is None or not before.space or _sweep_of(before) == _sweep_of(after):
        return None
    kept = " (nothing is deleted; the sweep as it was takes them up again)" if after.aside else ""
    return (
        f"The sweep has changed: {len(folder.outcomes())} trials on record are points of it and count, "
        f"{len(after.aside)} are left aside{kept}."
    )


def _sweep_of(record: StudyRecord) -> tuple[object, ...]:
    """Return what two equal sweeps have in common: dimensions in the order in which a grid is walked."""
    return list(record.space.items()), record.fill_decode


def _fits(proposal: Proposal, record: StudyRecord) -> bool:
    """Return whether the parameters are a point of the record's space; a baseline need not be one."""
    point, space = proposal.params, record.space
    return not point or (
        point.keys() == space.keys() and all(contains(space[name], value) for name, value in point.items())
    )


def _point_of(spec: TrialSpec, base: TrialSpec, sweep: Sweep, proposal: Proposal) -> Point | None:
    """Return the point of the sweep that gives `spec`; empty for the baseline outside of it.

    Returns None for another trial that is no point.
    """
    for point in (proposal.params, locate_point(spec, sweep) or {}):
        is_point = point.keys() == sweep.space.keys() and all(
            contains(sweep.space[name], value) for name, value in point.items()
        )
        if is_point and bind_point(base, sweep, point) == spec:
            return point
    return {} if spec == base else None


def _change_params(folder: StudyFolder, proposal: Proposal, point: Point) -> None:
    """Record the trial's point in the new sweep, in its proposal and in its outcome."""
    folder.append_proposal(proposal.model_copy(update={"params": dict(point)}))
    trial = folder.trial(proposal.trial_id)
    outcome = trial.read_outcome()
    if outcome:
        provenance = outcome.provenance | {"params": dict(point)}
        trial.write_outcome(outcome.model_copy(update={"provenance": provenance}))
