"""Make a table of step times from the logs of workers: the median time of each kind of step."""

from __future__ import annotations

import gzip
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tune.engines.base import LoggedStep
from tune.errors import ConfigurationError
from tune.spec.step_table import Phase, StepRow

_SUFFIXES = (".out", ".log", ".txt", ".csv")
_EXTRACT = "_steps.csv.gz"
"""End of the name of a file with the steps of NAME.out, as scripts/gpu_run.sh leaves them."""

_EXACT = 32
"""Largest batch, number of tokens or mean context that is a cell of its own. Chosen here."""

_CELLS_PER_OCTAVE = 8
"""Cells between a size and its double, above _EXACT. Chosen here: a cell is 9 % wide."""

_SHORT_FRAC, _SHORT_STEPS_FRAC = 0.25, 0.01
"""A step below the first share of its cell's median is shorter than its work; above the second share of such
steps the log does not time whole ones. Chosen here: 8.5 % of 2,709 decode steps were so short where vLLM
scheduled asynchronously (tests/data/gpu)."""

_Cells = dict[tuple[int, ...], list[LoggedStep]]
"""Steps by their cell."""


@dataclass
class MeasuredSteps:
    """Hold the rows of a table and what they were made of.

    `counted` are the steps in the rows of each phase, `short` those that took less than a quarter of the
    median of their cell. `mixed` steps both read prompts and continued answers: they are rows of prefill.
    `unplaced` are mixed steps too, but their log has contexts, and not which of them are the answers'.
    `other_depth` are decode steps with another number of draft tokens than most. No row holds the last two.
    """

    files: int = 0
    mixed: int = 0
    unplaced: int = 0
    other_depth: int = 0
    rows: dict[Phase, Sequence[StepRow]] = field(default_factory=dict)
    counted: dict[Phase, int] = field(default_factory=dict)
    short: dict[Phase, int] = field(default_factory=dict)

    def add(self, phase: Phase, cells: Sequence[Sequence[LoggedStep]]) -> None:
        """Add the rows of a phase: the medians of each cell."""
        rows = [_row(steps) for steps in cells]
        self.rows[phase] = sorted(rows, key=lambda row: (row.new_tokens, row.batch, row.context_tokens or 0))
        self.counted[phase] = sum(map(len, cells))
        self.short[phase] = sum(
            1e3 * step.elapsed_s < _SHORT_FRAC * row.milliseconds
            for steps, row in zip(cells, rows, strict=True)
            for step in steps
        )

    def are_whole(self, phase: Phase) -> bool:
        """Return whether the times of a phase are plausible as those of whole steps."""
        return self.short[phase] <= _SHORT_STEPS_FRAC * self.counted[phase]


def measure_steps(folder: Path, read_steps: Callable[[Iterable[str]], Iterable[LoggedStep]]) -> MeasuredSteps:
    """Return the step times in all logs below a folder.

    Parameters
    ----------
    folder
        Folder with a file for each worker: NAME.out, .log, .txt or .csv, or one of these with .gz. A log with
        its steps beside it (NAME_steps.csv.gz) is left out.
    read_steps
        Returns the steps in the lines of one log.

    Returns
    -------
    MeasuredSteps
        One row for each cell, the medians of its steps, ordered by size.

    Raises
    ------
    ConfigurationError
        If no log has a step that a table can hold.
    """
    measured = MeasuredSteps()
    prefill: _Cells = defaultdict(list)
    by_depth: dict[int, _Cells] = defaultdict(lambda: defaultdict(list))
    for path in _logs(folder):
        steps = tuple(read_steps(_lines(path)))
        measured.files += bool(steps)
        for step in steps:
            if step.phase is None and step.context_tokens is not None:
                measured.unplaced += 1
            elif step.phase != "decode":
                measured.mixed += step.phase is None
                prefill[_cell(step)].append(step)
            elif step.new_tokens % step.batch:
                measured.other_depth += 1
            else:
                by_depth[step.new_tokens // step.batch][_cell(step)].append(step)
    measured.add("prefill", list(prefill.values()))
    most = max(by_depth, key=lambda depth: (_steps_in(by_depth[depth]), -depth), default=1)
    measured.add("decode", list(by_depth.pop(most, {}).values()))
    measured.other_depth += sum(map(_steps_in, by_depth.values()))
    if not any(measured.counted.values()):
        raise ConfigurationError(
            f"logs: found no step of a worker in {folder}; expected logs ({', '.join(_SUFFIXES)}, also with "
            ".gz) of the engine of stack.engine that print every step: enable_logging_iteration_details of "
            "vLLM, print_iter_log of TensorRT-LLM."
        )
    return measured


def _logs(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        plain = path.with_suffix("") if path.suffix == ".gz" else path
        extracted = path.with_name(path.stem + _EXTRACT)
        if plain.suffix in _SUFFIXES and path.is_file() and not extracted.exists():
            yield path


def _lines(path: Path) -> Iterator[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
        yield from lines


def _steps_in(cells: _Cells) -> int:
    """Return the number of steps in all cells."""
    return sum(map(len, cells.values()))


def _cell(step: LoggedStep) -> tuple[int, ...]:
    """Return the cell of a step: those of its batch, its new tokens and its mean context.

    Mixed steps of any batch share a cell: an answer is a token of theirs.
    """
    mean_context = -1 if step.context_tokens is None else round(step.context_tokens / step.batch)
    return _bucket(step.batch) if step.phase else 0, _bucket(step.new_tokens), _bucket(mean_context)


def _bucket(size: int) -> int:
    if size <= _EXACT:
        return size
    return _EXACT + round(_CELLS_PER_OCTAVE * math.log2(size / _EXACT))


def _row(steps: Sequence[LoggedStep]) -> StepRow:
    """Return the medians of the steps of one cell."""
    batch = round(median(step.batch for step in steps))
    new_tokens = round(median(step.new_tokens for step in steps))
    if steps[0].phase == "decode":  # as many for each sequence in all steps of a cell
        new_tokens = batch * (steps[0].new_tokens // steps[0].batch)
    contexts = [step.context_tokens for step in steps if step.context_tokens is not None]
    return StepRow(
        batch=batch,
        new_tokens=max(batch, new_tokens),
        context_tokens=round(median(contexts)) if contexts else None,
        milliseconds=1e3 * median(step.elapsed_s for step in steps),
        steps=len(steps),
    )
