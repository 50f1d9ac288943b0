"""Read and append `proposals.jsonl`: every proposed point in order, one JSON object per line."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from tune.core.files import first_validation_error, no_link, write_error
from tune.errors import ResumableError
from tune.records.posterior_summary import Interval
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt
from tune.spec.space import Value


class Proposal(FrozenModel):
    """Hold one proposed point; `params` are the sampler's raw values, before they are bound.

    `expected_capacity_qps` is the capacity that the surrogate expected when it proposed the point, None for
    other searches. Below `early_stop_below_qps` another configuration was expected to do better; it is 0
    where no rate is low enough for that.
    """

    number: NonNegativeInt
    params: dict[str, Value]
    source: str
    trial_id: str
    expected_capacity_qps: Interval | None = None
    early_stop_below_qps: NonNegativeFloat = 0.0


def read_proposals(path: Path) -> tuple[Proposal, ...]:
    """Return every proposal in `path`, () where there is no file.

    The last line may lack its end, because a killed study was writing it. It counts if it is whole and is
    left out otherwise. Raises ResumableError, with the line's number, for any other line that is no
    proposal.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ResumableError(
            f"{path}: cannot be read ({first_validation_error(error)}); expected the proposals."
        ) from error
    proposals = []
    for number, line in enumerate(lines, start=1):
        try:
            proposals.append(Proposal.model_validate_json(line))
        except ValidationError as error:
            if number < len(lines):
                raise ResumableError(
                    f"{path}, line {number}: not a proposal ({first_validation_error(error)}); "
                    "expected an object with number, params, source and trial_id. Repair the line or move "
                    "the file away: the study then proposes anew and reuses every outcome on record."
                ) from error
    return tuple(proposals)


def append_proposal(path: Path, proposal: Proposal) -> None:
    """Append one line to `path`, after removing a last line that a kill tore off.

    Raises ConfigurationError when the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", opener=no_link) as file:
            file.seek(0)
            whole, _, tail = file.read().rpartition(b"\n")
            if tail and not _is_proposal(tail):
                file.truncate(len(whole) + bool(whole))
                tail = b""
            file.write((b"\n" if tail else b"") + proposal.model_dump_json().encode() + b"\n")
    except OSError as error:
        raise write_error(path, error) from error


def _is_proposal(line: bytes) -> bool:
    """Return whether `line` is a whole proposal."""
    try:
        Proposal.model_validate_json(line)
    except ValidationError:
        return False
    return True
