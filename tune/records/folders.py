"""Locate, read and write each record of a study in its run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel

from tune.core.files import read_record, unreadable, write_text
from tune.errors import ResumableError
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
        path = self.root / "outcome.json"
        try:
            found = path.stat()
        except OSError:
            return read_record(path, Outcome)
        return _outcome_of(path, (found.st_ino, found.st_mtime_ns, found.st_size))

    def write_outcome(self, outcome: Outcome, *, durable: bool = False) -> None:
        """Write outcome.json, `durable` as in tune.core.files.open_atomic."""
        _write(self.root / "outcome.json", outcome, durable=durable)

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


@lru_cache(maxsize=4096)
def _outcome_of(path: Path, version: tuple[int, int, int]) -> Outcome | None:
    """Return the outcome in a file, parsed once for each `version` of it: inode, time and size.

    One command reads those of its study several times, which is a third of its time where they are thousands.
    """
    return read_record(path, Outcome)


def trial_of(attempt: Path) -> TrialFolder:
    """Return the trial of the attempt in the folder `attempt`, which is TRIAL/raw/ATTEMPT."""
    return TrialFolder(attempt.absolute().parents[1])


@dataclass(frozen=True)
class StudyFolder:
    """Locate runs/<study>, which holds study.json, proposals.jsonl and one folder for each trial.

    `require_held` is called before every write: where this process locked the study, it raises ResumableError
    once the lock is lost. Writing raises ConfigurationError where the folder cannot be written. Reading
    raises ResumableError, which names the file, for one that is torn or of another shape.
    """

    root: Path
    require_held: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)

    def trial(self, trial_id: str) -> TrialFolder:
        """Return the folder of the trial `trial_id`, whether it exists or not."""
        return TrialFolder(self.root / trial_id)

    def trials(self) -> tuple[TrialFolder, ...]:
        """Return every trial that has a spec.json, sorted by trial_id."""
        return tuple(TrialFolder(folder) for folder in self._with("spec.json"))

    def outcomes(self, *, aside: bool = False) -> tuple[Outcome, ...]:
        """Return the outcomes on record, sorted by number.

        They are those of the trials left aside (StudyRecord.aside), or without it all others.
        """
        names = self._aside()
        folders = (folder for folder in self._with("outcome.json") if (folder.name in names) == aside)
        outcomes = (TrialFolder(folder).read_outcome() for folder in folders)
        return tuple(sorted((outcome for outcome in outcomes if outcome), key=lambda outcome: outcome.number))

    def unjudged(self) -> tuple[str, ...]:
        """Return the trials with an attempt that has ended, but without an outcome.json."""
        ended = {path.parents[2] for path in self.root.glob(f"*/raw/*/{_ATTEMPT_FILE}")}
        return tuple(sorted(path.name for path in ended.difference(self._with("outcome.json"))))

    def _with(self, name: str) -> list[Path]:
        """Return the folders that hold a file `name`, sorted.

        Raises ResumableError for one that this user may not look into: it would be left out in silence.
        """
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [folder for folder in folders if _is_there(folder / name)]

    def spec_of(self, outcome: Outcome) -> TrialSpec:
        """Return the configuration of a trial: its spec.json, or where that is missing, composed again.

        Raises ResumableError where the records do not compose it.
        """
        spec, study = self.trial(outcome.trial_id).read_spec(), self.read_study()
        if spec is None and study:
            spec = study.compose_trial(outcome.trial_id, outcome.provenance.get("params"))
        if spec is None:
            path = self.trial(outcome.trial_id).root
            raise ResumableError(
                f"{path / 'spec.json'}: found none, and study.json does not compose this trial again; "
                "expected the configuration of the trial. Copy the file from where the trial ran, or move "
                f"{path} away: this command then leaves the trial out, and the study's measures it again."
            )
        return spec

    def read_study(self) -> StudyRecord | None:
        """Return the record of the study, None without a study.json."""
        return read_record(self.root / "study.json", StudyRecord)

    def write_study(self, record: StudyRecord) -> None:
        """Write study.json; it outlives a loss of power."""
        self.require_held()
        _write(self.root / "study.json", record, durable=True)

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
        self.require_held()
        append_proposal(self.root / "proposals.jsonl", proposal)


def write_attempt(attempt: Path, record: AttemptRecord, *, durable: bool = False) -> None:
    """Write attempt.json, the last file of an attempt.

    Parameters
    ----------
    attempt
        Folder of the attempt.
    record
        What the file holds.
    durable
        Whether it outlives a loss of power.
    """
    _write(attempt / _ATTEMPT_FILE, record, durable=durable)


def has_ended(attempt: Path) -> bool:
    """Return whether the attempt in the folder `attempt` has left its record.

    The folder is listed rather than the file looked up: on a shared file system only a listing is sure to
    query the server.
    """
    return attempt.is_dir() and any(path.name == _ATTEMPT_FILE for path in attempt.iterdir())


def read_attempt(attempt: Path) -> AttemptRecord | None:
    """Return the record of the attempt in the folder `attempt`, None for one that runs or was lost."""
    return read_record(attempt / _ATTEMPT_FILE, AttemptRecord)


def _is_there(path: Path) -> bool:
    """Return whether there is something at `path`; raise ResumableError where this user may not look."""
    try:
        path.stat(follow_symlinks=False)
    except PermissionError as error:
        raise unreadable(path.parent) from error
    except OSError:
        return False
    return True


def _write(path: Path, record: BaseModel, *, durable: bool = False) -> None:
    """Write a record as JSON."""
    write_text(path, record.model_dump_json(by_alias=True, indent=1) + "\n", durable=durable)
