"""Locate, read and write each record of a study in its run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from tune.core.files import read_record, write_text
from tune.records.attempt_record import AttemptRecord
from tune.records.outcome import Outcome
from tune.records.proposals import Proposal, append_proposal, read_proposals
from tune.records.study_record import StudyRecord
from tune.spec.trial import PROBE_FOLDER, TrialSpec

__all__ = [
    "PROBE_FOLDER",
    "StudyFolder",
    "TrialFolder",
    "has_ended",
    "read_attempt",
    "trial_of",
    "write_attempt",
]

_ATTEMPT_FILE = "attempt.json"


@dataclass(frozen=True)
class TrialFolder:
    """Locate runs/<study>/<trial_id>, which holds spec.json, plan/, raw/<attempt>/ and outcome.json.

    Writing raises ConfigurationError where the folder cannot be written. Reading returns None for a missing
    file and raises ResumableError, which names the file, for one that is torn or of another shape.
    """

    root: Path

    @property
    def plan(self) -> Path:
        """Return the folder of the rendered launch plan."""
        return self.root / "plan"

    @property
    def raw(self) -> Path:
        """Return the folder of the attempts."""
        return self.root / "raw"

    def read_spec(self) -> TrialSpec | None:
        """Return the configuration of the trial, None without a spec.json."""
        return read_record(self.root / "spec.json", TrialSpec)

    def write_spec(self, spec: TrialSpec) -> None:
        """Write spec.json."""
        _write(self.root / "spec.json", spec)

    def read_outcome(self) -> Outcome | None:
        """Return the outcome of the trial, None without an outcome.json."""
        return read_record(self.root / "outcome.json", Outcome)

    def write_outcome(self, outcome: Outcome) -> None:
        """Write outcome.json."""
        _write(self.root / "outcome.json", outcome)

    def attempts(self) -> tuple[Path, ...]:
        """Return the folders of the attempts so far, in order: raw/1, raw/2, ..."""
        if not self.raw.is_dir():
            return ()
        numbers = sorted(int(path.name) for path in self.raw.iterdir() if path.name.isdecimal())
        return tuple(self.raw / str(number) for number in numbers)

    def last_attempt(self) -> Path | None:
        """Return the folder of the latest attempt, None before the first."""
        return self.attempts()[-1] if self.attempts() else None

    def new_attempt(self) -> Path:
        """Return the folder of the next attempt, which does not exist yet."""
        last = self.last_attempt()
        return self.raw / str(int(last.name) + 1 if last else 1)


def trial_of(attempt: Path) -> TrialFolder:
    """Return the trial of the attempt in the folder `attempt`, which is TRIAL/raw/ATTEMPT."""
    return TrialFolder(attempt.absolute().parents[1])


@dataclass(frozen=True)
class StudyFolder:
    """Locate runs/<study>, which holds study.json, proposals.jsonl and one folder for each trial.

    Writing raises ConfigurationError where the folder cannot be written. Reading raises ResumableError, which
    names the file, for one that is torn or of another shape.
    """

    root: Path

    def trial(self, trial_id: str) -> TrialFolder:
        """Return the folder of the trial `trial_id`, whether it exists or not."""
        return TrialFolder(self.root / trial_id)

    def trials(self) -> tuple[TrialFolder, ...]:
        """Return every trial that has a spec.json, sorted by trial_id."""
        return tuple(TrialFolder(path.parent) for path in sorted(self.root.glob("*/spec.json")))

    def outcomes(self, *, aside: bool = False) -> tuple[Outcome, ...]:
        """Return the outcomes on record, sorted by number.

        They are those of the trials left aside (StudyRecord.aside), or without it all others.
        """
        names = self._aside()
        paths = sorted(p for p in self.root.glob("*/outcome.json") if (p.parent.name in names) == aside)
        outcomes = (TrialFolder(path.parent).read_outcome() for path in paths)
        return tuple(sorted((outcome for outcome in outcomes if outcome), key=lambda outcome: outcome.number))

    def read_study(self) -> StudyRecord | None:
        """Return the record of the study, None without a study.json."""
        return read_record(self.root / "study.json", StudyRecord)

    def write_study(self, record: StudyRecord) -> None:
        """Write study.json."""
        _write(self.root / "study.json", record)

    def read_proposals(self, *, with_aside: bool = False) -> tuple[Proposal, ...]:
        """Return the last line of every number, without a last line that a kill tore off.

        They are in the order in which the numbers were first written. Trials left aside (StudyRecord.aside)
        are left out unless `with_aside`.
        """
        by_number = {proposal.number: proposal for proposal in read_proposals(self.root / "proposals.jsonl")}
        aside = () if with_aside else self._aside()
        return tuple(proposal for proposal in by_number.values() if proposal.trial_id not in aside)

    def _aside(self) -> tuple[str, ...]:
        """Return the trials left aside."""
        study = self.read_study()
        return study.aside if study else ()

    def append_proposal(self, proposal: Proposal) -> None:
        """Append one line to proposals.jsonl."""
        append_proposal(self.root / "proposals.jsonl", proposal)


def write_attempt(attempt: Path, record: AttemptRecord) -> None:
    """Write attempt.json, the last file of an attempt, into the folder `attempt`."""
    _write(attempt / _ATTEMPT_FILE, record)


def has_ended(attempt: Path) -> bool:
    """Return whether the attempt in the folder `attempt` has left its record.

    The folder is listed rather than the file looked up: on a shared file system only a listing is sure to
    query the server.
    """
    return attempt.is_dir() and any(path.name == _ATTEMPT_FILE for path in attempt.iterdir())


def read_attempt(attempt: Path) -> AttemptRecord | None:
    """Return the record of the attempt in the folder `attempt`, None for one that runs or was lost."""
    return read_record(attempt / _ATTEMPT_FILE, AttemptRecord)


def _write(path: Path, record: BaseModel) -> None:
    """Write a record as JSON."""
    write_text(path, record.model_dump_json(by_alias=True, indent=1) + "\n")
