"""The run folder: where each record of a study lies, and how it is written and read back."""

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
    """runs/<study>/<trial_id>: spec.json, plan/, raw/<attempt>/, outcome.json.

    Writing raises ConfigurationError where the folder cannot be written; reading raises ResumableError, naming the file,
    where it is torn or of another shape, and returns None where there is none.
    """

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan"

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    def read_spec(self) -> TrialSpec | None:
        return read_record(self.root / "spec.json", TrialSpec)

    def write_spec(self, spec: TrialSpec) -> None:
        _write(self.root / "spec.json", spec)

    def read_outcome(self) -> Outcome | None:
        return read_record(self.root / "outcome.json", Outcome)

    def write_outcome(self, outcome: Outcome) -> None:
        _write(self.root / "outcome.json", outcome)

    def attempts(self) -> tuple[Path, ...]:
        """Folders of the attempts so far, in order: raw/1, raw/2, ..."""
        if not self.raw.is_dir():
            return ()
        numbers = sorted(int(path.name) for path in self.raw.iterdir() if path.name.isdecimal())
        return tuple(self.raw / str(number) for number in numbers)

    def last_attempt(self) -> Path | None:
        return self.attempts()[-1] if self.attempts() else None

    def new_attempt(self) -> Path:
        """The folder of the next attempt; it does not exist yet."""
        last = self.last_attempt()
        return self.raw / str(int(last.name) + 1 if last else 1)


def trial_of(attempt: Path) -> TrialFolder:
    """The trial whose attempt has the folder `attempt`: TRIAL/raw/ATTEMPT."""
    return TrialFolder(attempt.absolute().parents[1])


@dataclass(frozen=True)
class StudyFolder:
    """runs/<study>: study.json, proposals.jsonl, and one folder a trial. Errors as in TrialFolder."""

    root: Path

    def trial(self, trial_id: str) -> TrialFolder:
        return TrialFolder(self.root / trial_id)

    def trials(self) -> tuple[TrialFolder, ...]:
        """Every trial that has a spec.json, by trial_id."""
        return tuple(TrialFolder(path.parent) for path in sorted(self.root.glob("*/spec.json")))

    def outcomes(self) -> tuple[Outcome, ...]:
        """Every outcome on record, by number."""
        found = (TrialFolder(path.parent).read_outcome() for path in sorted(self.root.glob("*/outcome.json")))
        return tuple(sorted((outcome for outcome in found if outcome), key=lambda outcome: outcome.number))

    def read_study(self) -> StudyRecord | None:
        return read_record(self.root / "study.json", StudyRecord)

    def write_study(self, record: StudyRecord) -> None:
        _write(self.root / "study.json", record)

    def read_proposals(self) -> tuple[Proposal, ...]:
        """Every proposal, in order of writing. A last line that a kill tore off is left out."""
        return read_proposals(self.root / "proposals.jsonl")

    def append_proposal(self, proposal: Proposal) -> None:
        append_proposal(self.root / "proposals.jsonl", proposal)


def write_attempt(attempt: Path, record: AttemptRecord) -> None:
    """Write attempt.json into the folder `attempt`: the last file of an attempt."""
    _write(attempt / _ATTEMPT_FILE, record)


def has_ended(attempt: Path) -> bool:
    """Whether the attempt in the folder `attempt` has left its record. The folder is listed, not the file
    looked for: on a shared file system only that is sure to ask the server."""
    return attempt.is_dir() and any(path.name == _ATTEMPT_FILE for path in attempt.iterdir())


def read_attempt(attempt: Path) -> AttemptRecord | None:
    """The record of the attempt in the folder `attempt`; None for one that runs or was lost."""
    return read_record(attempt / _ATTEMPT_FILE, AttemptRecord)


def _write(path: Path, record: BaseModel) -> None:
    write_text(path, record.model_dump_json(by_alias=True, indent=1) + "\n")
