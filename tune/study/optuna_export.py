"""Write the trials of a study into an Optuna storage, which `optuna.load_study` and optuna-dashboard open."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune.analysis.slo import figure_s
from tune.core.files import write_error
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.spec.metrics import LIMITS, SHOWN_LIMITS
from tune.spec.space import OrderedDimension
from tune.study.optuna_space import as_scalar, distributions

SQLITE_SUFFIXES = (".db", ".sqlite3")
"""Suffixes of a file that becomes an SQLite database; any other file becomes Optuna's journal."""

_MARK = "exported by tune: action=export writes this file anew"
"""User attribute of an exported study, by which a later export recognises its own file."""

_STATES = {"measured": TrialState.COMPLETE, "infeasible": TrialState.COMPLETE, "failed": TrialState.FAIL}


def export_to_optuna(folder: StudyFolder, record: StudyRecord, file: Path) -> int:
    """Write every proposal of a study, with its outcome, into an Optuna storage.

    The objective is output tokens/s per GPU, to be maximised. An infeasible trial has the value 0 and
    violates the constraint `feasible`; a proposal without an outcome is a running trial; a failed trial has
    no value.

    Parameters
    ----------
    folder : StudyFolder
        The study on disk.
    record : StudyRecord
        Its `study.json`.
    file : Path
        The storage, which is replaced where an earlier export wrote it.

    Returns
    -------
    int
        Number of exported trials.

    Raises
    ------
    ConfigurationError
        If `file` exists and is no earlier export, or cannot be written.
    """
    if file.exists() and _MARK.encode() not in file.read_bytes():
        raise ConfigurationError(
            f"export.file: {file} exists and was not written by action=export; expected a new file. Name "
            "another one."
        )
    trials = _trials(folder, record)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=file.parent, prefix=".export-") as scratch:
            written = Path(scratch) / file.name
            _write(written, record.name, trials)
            written.replace(file)
    except OSError as error:
        raise write_error(file, error) from error
    return len(trials)


def _write(file: Path, name: str, trials: list[FrozenTrial]) -> None:
    """Write a new storage with one study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _storage(file)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    study.set_user_attr("origin", _MARK)
    study.add_trials(trials)
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _storage(file: Path) -> BaseStorage:
    if file.suffix in SQLITE_SUFFIXES:
        return RDBStorage(f"sqlite:///{file}")
    return JournalStorage(JournalFileBackend(str(file), lock_obj=JournalFileOpenLock(str(file))))


def _trials(folder: StudyFolder, record: StudyRecord) -> list[FrozenTrial]:
    """Return one Optuna trial per proposal, by number."""
    outcomes = {outcome.trial_id: outcome for outcome in folder.outcomes()}
    dimensions = _distributions(record)
    proposals = {proposal.number: proposal for proposal in folder.read_proposals()}
    return [
        _trial(proposals[number], outcomes.get(proposals[number].trial_id), dimensions)
        for number in sorted(proposals)
    ]


def _distributions(record: StudyRecord) -> dict[str, BaseDistribution]:
    """Return Optuna's distributions, with the values of ordered dimensions instead of their positions."""
    ordered = {
        name: CategoricalDistribution([as_scalar(value) for value in dimension.values])
        for name, dimension in record.space.items()
        if isinstance(dimension, OrderedDimension)
    }
    return {**distributions(record.space), **ordered}


def _trial(
    proposal: Proposal, outcome: Outcome | None, dimensions: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    params = {name: as_scalar(value) for name, value in proposal.params.items()}
    state = _STATES[outcome.status] if outcome else TrialState.RUNNING
    complete = outcome is not None and state == TrialState.COMPLETE
    trial = create_trial(
        state=state,
        value=(outcome.output_tps_per_gpu or 0.0) if outcome and complete else None,
        params=params,
        distributions={name: dimensions[name] for name in params},
        user_attrs=_attributes(proposal, outcome),
        constraints=_constraints(outcome) if outcome and complete else None,
    )
    if outcome is not None and outcome.attempts:
        trial.datetime_start = _local_time(outcome.attempts[0].started_at)
        trial.datetime_complete = _local_time(outcome.attempts[-1].ended_at)
    return trial


def _local_time(recorded: str) -> datetime:
    """Return a recorded moment as Optuna keeps it: in local time, without a time zone."""
    return datetime.fromisoformat(recorded).astimezone().replace(tzinfo=None)


def _constraints(outcome: Outcome) -> dict[str, float]:
    """Return values that hold at most 0: -1 or 1 for `feasible`, and ln(measured / limit) of each limit."""
    limits = {name: value for name, value in dict(outcome.constraints).items() if value is not None}
    return {"feasible": -1.0 if outcome.feasible else 1.0, **limits}


def _attributes(proposal: Proposal, outcome: Outcome | None) -> dict[str, Any]:
    attributes: dict[str, Any] = {"trial_id": proposal.trial_id, "source": proposal.source}
    if outcome is None:
        return attributes
    return attributes | {
        "status": outcome.status,
        "reason": outcome.reason,
        "target_qps": outcome.target_qps,
        **{
            limit.key: figure_s(limit, outcome.statistics_of(limit.latency))
            for limit in LIMITS
            if limit in SHOWN_LIMITS or limit in outcome.constraints.used
        },
        "gpu_hours": outcome.gpu_hours,
        "command": shlex.join(["python", "-m", "tune", *outcome.provenance.get("overrides", [])]),
    }
