"""Read and append `proposals.jsonl`: every proposed point in order, one JSON object per line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from tune.core.files import (
    MOVE_FILE,
    first_validation_error,
    no_link,
    read_file,
    unreadable,
    write_error,
)
from tune.errors import ResumableError
from tune.records.posterior_summary import Interval
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt
from tune.spec.space import Value

_TAIL_BYTES = 1 << 14
"""Bytes at the end of the file that are read first; a line has some hundred."""


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
        content = read_file(path)
    except PermissionError as error:
        raise unreadable(path) from error
    except OSError as error:
        raise ResumableError(
            f"{path}: cannot be read ({first_validation_error(error)}); expected the proposals. {MOVE_FILE}"
        ) from error
    if content is None:
        return ()
    lines, proposals = content.split(b"\n"), []
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

    Raises what tune.core.files.write_error returns when the file cannot be written.
    """
    try:
        with open(path, "ab+", opener=no_link) as file:
            tail = _last_line(file)
            if tail and not _is_proposal(tail):
                file.truncate(file.seek(0, os.SEEK_END) - len(tail))
                tail = b""
            file.write((b"\n" if tail else b"") + proposal.model_dump_json().encode() + b"\n")
    except OSError as error:
        raise write_error(path, error) from error


def _last_line(file: BinaryIO) -> bytes:
    """Return what follows the last end of a line, without reading all lines before it."""
    size, length = file.seek(0, os.SEEK_END), _TAIL_BYTES
    while True:
        file.seek(max(0, size - length))
        before, _, tail = file.read().rpartition(b"\n")
        if before or length >= size:
            return tail
        length *= 2


def _is_proposal(line: bytes) -> bool:
    """Return whether `line` is a whole proposal."""
    try:
        Proposal.model_validate_json(line)
    except ValidationError:
        return False
    return True
