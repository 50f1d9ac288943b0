"""Read files of lengths and traces: CSV or JSON lines, a request a row.

Sources of the columns: Mooncake's traces (kvcache-ai/Mooncake, FAST25-release/traces: JSON lines with
timestamp in ms, input_length, output_length), with the aliases that Dynamo reads (dynamo-data-gen,
mooncake.rs: created_time, input_tokens, output_tokens); Azure's LLM inference traces
(Azure/AzurePublicDataset: CSV with TIMESTAMP, a date, ContextTokens, GeneratedTokens); BurstGPT (CSV with
Timestamp in s, Request tokens, Response tokens); the usage of OpenAI's API (prompt_tokens,
completion_tokens).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset
from tune.spec.load import Trace

_INPUT, _OUTPUT, _TIME = "input_tokens", "output_tokens", "timestamp"

_COLUMNS = {
    "input_tokens": _INPUT,
    "input": _INPUT,
    "prompt_tokens": _INPUT,
    "input_length": _INPUT,
    "contexttokens": _INPUT,
    "request tokens": _INPUT,
    "output_tokens": _OUTPUT,
    "output": _OUTPUT,
    "completion_tokens": _OUTPUT,
    "output_length": _OUTPUT,
    "generatedtokens": _OUTPUT,
    "response tokens": _OUTPUT,
    "timestamp": _TIME,
    "created_time": _TIME,
}
"""What each column holds, by its name in lower case."""

_SHIPPED = "shipped:"
"""Begins the path of a file of lengths that comes with tune, the same on every machine."""

_DATA = Path(__file__).parent / "data"

_MAX_DIGITS = 12
"""Largest number of digits of a length."""


@dataclass(frozen=True, eq=False)
class FileRows:
    """Hold the requests of a file in their order, arrays of shape (rows,).

    `time_s` are arrivals in seconds since the first, ascending; None where they were not asked for. `line` is
    that of each row in the file.
    """

    inputs: IntArray
    outputs: IntArray
    time_s: FloatArray | None
    line: IntArray

    @property
    def mean_qps(self) -> float:
        """Return the mean rate of the arrivals, which has no meaning without times."""
        assert self.time_s is not None
        return (len(self.time_s) - 1) / float(self.time_s[-1])


def find_lengths(path: str) -> Path:
    """Return the file that `load.dataset.path` names: `shipped:NAME` is NAME in tune/workload/data.

    Raises ConfigurationError for a name that none of those files has.
    """
    if not path.startswith(_SHIPPED):
        return Path(path)
    names = sorted(file.name for file in _DATA.glob("mlperf_*.csv"))
    if path.removeprefix(_SHIPPED) not in names:
        expected = " or ".join(f"{_SHIPPED}{name}" for name in names)
        raise ConfigurationError(f"load.dataset.path: found {path}; expected {expected}, or your own file.")
    return _DATA / path.removeprefix(_SHIPPED)


def pinned_path(path: str) -> str:
    """Return `path` as a trial keeps it: absolute, unless the file comes with tune."""
    return path if path.startswith(_SHIPPED) else str(Path(path).absolute())


def read_rows(path: Path, trace: Trace | None) -> FileRows:
    """Read the rows of a file of lengths, with their arrivals in order of time for a `trace`.

    Raises ConfigurationError, which names the line, for a file that is missing or unreadable, lacks a column,
    or holds anything but whole numbers from 1 as lengths and numbers or dates as times.
    """
    try:
        status = path.stat()
        return _read_rows(path, trace, status.st_mtime_ns, status.st_size)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            f"load.dataset.path: {path} cannot be read ({getattr(error, 'strerror', None) or error}); "
            "expected a CSV or JSON lines with input_tokens and output_tokens. Give an existing file."
        ) from error


def read_lengths(path: Path, dataset: Dataset, trace: Trace | None = None) -> tuple[IntArray, IntArray]:
    """Read prompt and answer tokens of a file, one row a sample: two int64 arrays.

    ConfigurationError is raised as by `read_rows`, for a length above the dataset's longest prompt and
    answer, and for another number of rows than `dataset.samples`.
    """
    rows = read_rows(path, trace)
    for column, tokens, setting, limit in (
        (_INPUT, rows.inputs, "longest_prompt_tokens", dataset.longest_prompt_tokens),
        (_OUTPUT, rows.outputs, "longest_answer_tokens", dataset.longest_answer_tokens),
    ):
        above = np.flatnonzero(tokens > limit)
        if len(above):
            raise ConfigurationError(
                f"{path}, line {rows.line[above[0]]}: {column} is {tokens[above[0]]}; expected 1 to {limit} "
                f"(load.dataset.{setting}), {len(above)} row(s) are above. Set "
                f"load.dataset.{setting}={tokens.max()}, or null with load=csv or load=trace."
            )
    if len(rows.inputs) != dataset.samples:
        raise ConfigurationError(
            f"{path}: {len(rows.inputs)} rows, but load.dataset.samples is {dataset.samples}; set "
            f"load.dataset.samples={len(rows.inputs)}, or null with load=csv or load=trace."
        )
    return rows.inputs, rows.outputs


@lru_cache(maxsize=4)
def _read_rows(path: Path, trace: Trace | None, _modified_ns: int, _size: int) -> FileRows:
    """Read the rows of a file; cached until it changes, as every trial and rate needs them."""
    lines, inputs, outputs, times = [], [], [], []
    for line, row in _records(path, trace):
        lines.append(line)
        inputs.append(_whole(path, line, _INPUT, row))
        outputs.append(_whole(path, line, _OUTPUT, row))
        if trace:
            times.append(_time_s(path, line, row[_TIME], trace))
    if not lines:
        raise ConfigurationError(f"{path}: holds no request; expected one a row.")
    lengths = [np.array(column, np.int64) for column in (inputs, outputs, lines)]
    if not trace:
        return FileRows(lengths[0], lengths[1], None, lengths[2])
    order = np.argsort(times, kind="stable")
    time_s = np.array(times)[order]
    if time_s[-1] == time_s[0]:
        raise ConfigurationError(
            f"{path}: all {len(lines)} arrivals are at one time; expected at least two times, or load=csv."
        )
    inputs_, outputs_, lines_ = (column[order] for column in lengths)
    return FileRows(inputs_, outputs_, time_s - time_s[0], lines_)


def _records(path: Path, trace: Trace | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield line number and columns of each row; a file that begins with a brace is JSON lines."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        is_json = file.read(1) == "{"
    needed = (_INPUT, _OUTPUT, *((_TIME,) if trace else ()))
    for line, row in _json_rows(path) if is_json else _csv_rows(path, needed):
        known = {_COLUMNS.get(str(name).strip().lower(), ""): value for name, value in row.items()}
        missing = [name for name in needed if name not in known]
        if missing:
            raise ConfigurationError(
                f"{path}, line {line}: no column {' or '.join(missing)} in {', '.join(map(str, row))}; "
                f"expected {', '.join(needed)} or their names in a public trace "
                "(docs/how-to/your-deployment.md)."
            )
        yield line, known


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise ConfigurationError(
                    f"{path}, line {line}: not JSON ({error}); expected an object."
                ) from None
            if not isinstance(row, dict):
                raise ConfigurationError(
                    f"{path}, line {line}: found {text.strip()[:40]!r}; expected an object."
                )
            yield line, row


def _csv_rows(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the rows of a CSV; without a header the columns are time (of a trace), prompt and answer."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header and all(_is_number(cell) for cell in header):
            names = needed[-1:] + needed[:-1] if _TIME in needed else needed
            if len(header) != len(names):
                raise ConfigurationError(
                    f"{path}, line 1: found {len(header)} numbers and no header; expected a header, or the "
                    f"columns {','.join(names)}."
                )
            header, first = list(names), header
            yield 1, dict(zip(header, first, strict=True))
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) != len(header):
                    raise ConfigurationError(
                        f"{path}, line {reader.line_num}: found {len(cells)} cells; expected {len(header)}, "
                        "as in the first line."
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _whole(path: Path, line: int, column: str, row: Mapping[str, Any]) -> int:
    """Return a cell as a whole number from 1; raise ConfigurationError for anything else."""
    digits = str(row[column]).strip()
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _MAX_DIGITS or int(digits) < 1:
        raise ConfigurationError(
            f"{path}, line {line}: {column} is {row[column]!r}; expected a whole number from 1. "
            "Correct the row or take it out."
        )
    return int(digits)


def _time_s(path: Path, line: int, value: Any, trace: Trace) -> float:
    """Return a time in seconds: a number in the trace's unit, or a date in ISO 8601."""
    text = str(value).strip()
    if _is_number(text):
        return float(text) * (1e-3 if trace.time_unit == "ms" else 1.0)
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{path}, line {line}: timestamp is {value!r}; expected a number (load.trace.time_unit="
            f"{trace.time_unit}) or a date such as 2023-11-16 18:17:03.97. Correct the row or take it out."
        ) from None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
