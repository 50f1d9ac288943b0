"""Read tables of measured step times: what a step did, and how long it took."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field

Phase = Literal["prefill", "decode"]

PHASES: tuple[Phase, ...] = ("prefill", "decode")

MAX_ROWS = 10_000
"""Rows that a table may have. Chosen here: action=steps writes some hundred, and records hold them all."""


class StepRow(NamedTuple):
    """Hold the time of a kind of step: its sequences, new tokens, and tokens in the caches before it.

    `context_tokens` are those of all sequences together, None where they are not known. `steps` is the number
    of measured steps, the weight of the row.
    """

    batch: int
    new_tokens: int
    context_tokens: int | None
    milliseconds: float
    steps: int = 1


def draft_tokens(row: StepRow) -> int:
    """Return the draft tokens that a decode step checked for each sequence beside the one it makes."""
    return row.new_tokens // row.batch - 1


COLUMNS = ("phase", *StepRow._fields)
"""Columns of a table's file; `steps` may be absent."""


def _read_table(phase: Phase, value: object) -> object:
    """Return the rows of a table: those of the file that `value` names, or as a record holds them.

    Raises ValueError, which names file and line.
    """
    if isinstance(value, str):
        return _read_file(Path(value).expanduser(), phase)
    if isinstance(value, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in value):
        return tuple(StepRow(*row) for row in value)
    return value


def _of_prefill(value: object) -> object:
    return _read_table("prefill", value)


def _of_decode(value: object) -> object:
    return _read_table("decode", value)


_PATH = Field(description="path of a CSV file")

PrefillRows = Annotated[tuple[StepRow, ...], BeforeValidator(_of_prefill), _PATH]
"""Step times of a prefill worker: the path of a CSV file, or its rows."""

DecodeRows = Annotated[tuple[StepRow, ...], BeforeValidator(_of_decode), _PATH]
"""Step times of a decode worker: the path of a CSV file, or its rows."""


def _read_file(path: Path, phase: Phase) -> tuple[StepRow, ...]:
    """Return the rows of `phase`. Raises ValueError where the file is no table that the simulator can use."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = tuple(_rows(path, csv.DictReader(file), phase))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); expected a CSV file with the columns {', '.join(COLUMNS)}"
        ) from error
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{path} has {len(rows)} rows of {phase}; expected at most {MAX_ROWS}")
    size = "new_tokens" if phase == "prefill" else "batch"
    if len({getattr(row, size) for row in rows}) < 2:
        raise ValueError(
            f"{path} has {len(rows)} rows of {phase}; expected rows with two different values of {size} at "
            "least, between which steps are interpolated"
        )
    if phase == "decode" and len(depths := sorted({draft_tokens(row) for row in rows})) > 1:
        raise ValueError(
            f"{path} has decode steps with {', '.join(map(str, depths))} draft tokens a sequence; expected "
            "as many in all of them"
        )
    if len({row.context_tokens is None for row in rows}) > 1:
        raise ValueError(
            f"{path} has context_tokens in some rows of {phase} only; expected them in all rows or in none"
        )
    return rows


def _rows(path: Path, reader: csv.DictReader[str], phase: Phase) -> Iterator[StepRow]:
    """Yield the rows of `phase`; all are checked."""
    header = tuple(reader.fieldnames or ())
    if set(header) not in (set(COLUMNS), set(COLUMNS[:-1])):
        raise ValueError(
            f"{path}, line 1: found the columns {', '.join(header) or '(none)'}; "
            f"expected {', '.join(COLUMNS)} (steps may be absent)"
        )
    for cells in reader:
        try:
            row_phase, row = _row(cells)
        except ValueError as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
        if row_phase == phase:
            yield row


def _row(cells: dict[str, str]) -> tuple[str, StepRow]:
    """Return phase and content of one row. Raises ValueError for a value that no step has."""
    if None in cells or None in cells.values():
        raise ValueError("found more or fewer cells than columns; expected one for each column")
    phase = cells["phase"]
    if phase not in PHASES:
        raise ValueError(f"phase: found {phase!r}; expected {' or '.join(PHASES)}")
    batch, new_tokens = (_whole(cells, name, 1) for name in ("batch", "new_tokens"))
    if phase == "decode" and new_tokens % batch:
        raise ValueError(
            f"new_tokens: found {new_tokens} with a batch of {batch}; expected {batch}, or a multiple of it "
            "with draft tokens"
        )
    if new_tokens < batch:
        raise ValueError(f"new_tokens: found {new_tokens} with a batch of {batch}; expected {batch} or more")
    context = None if cells["context_tokens"] == "" else _whole(cells, "context_tokens", 0)
    steps = _whole(cells, "steps", 1) if "steps" in cells else 1
    return phase, StepRow(batch, new_tokens, context, _milliseconds(cells["milliseconds"]), steps)


def _whole(cells: dict[str, str], name: str, least: int) -> int:
    """Return a whole number of at least `least`."""
    if not cells[name].isdecimal() or int(cells[name]) < least:
        raise ValueError(f"{name}: found {cells[name]!r}; expected a whole number of at least {least}")
    return int(cells[name])


def _milliseconds(text: str) -> float:
    """Return a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise ValueError(f"milliseconds: found {text!r}; expected a time above 0")
    return value


def render_step_table(tables: dict[Phase, Sequence[StepRow]]) -> str:
    """Render the rows of each phase as the text of a table's file."""
    lines = [",".join(COLUMNS)]
    for phase, rows in tables.items():
        for row in rows:
            cells = (
                phase,
                row.batch,
                row.new_tokens,
                row.context_tokens,
                f"{row.milliseconds:.6g}",
                row.steps,
            )
            lines.append(",".join("" if cell is None else str(cell) for cell in cells))
    return "\n".join(lines) + "\n"
