"""Run action=steps: make a table of step times from the logs of an engine's workers."""

from __future__ import annotations

from pathlib import Path

from tune.calibrate.measured_steps import MeasuredSteps, measure_steps
from tune.cli.output import show
from tune.config import ComposedConfig
from tune.core.files import make_folder, write_text
from tune.engines.registry import adapter_named
from tune.errors import ConfigurationError
from tune.report.formatting import plural
from tune.spec.step_table import COLUMNS, PHASES, render_step_table


def steps_action(composition: ComposedConfig) -> None:
    """Read the logs in the folder `logs` and write the table `to`.

    Raises ConfigurationError without either, for a folder without steps, and for a file that is no table.
    """
    settings = composition.settings
    if settings.logs is None or settings.to is None:
        raise ConfigurationError(
            "action=steps needs logs=DIR, a folder with the logs of workers, and to=FILE.csv, the table to "
            "write."
        )
    folder, target = Path(settings.logs), Path(settings.to)
    if not folder.is_dir():
        raise ConfigurationError(f"logs: found no folder {folder}; expected one with the logs of workers.")
    _refuse_other_files(target)
    measured = measure_steps(folder, adapter_named(settings.stack.engine).read_steps)
    make_folder(target.parent, parents=True)
    write_text(target, render_step_table(measured.rows))
    _report(measured, target)


def _refuse_other_files(target: Path) -> None:
    """Raise ConfigurationError where `target` is something else than an earlier table."""
    header = ",".join(COLUMNS)
    if target.is_dir() or (
        target.exists() and not target.read_text(encoding="utf-8", errors="replace").startswith(header)
    ):
        raise ConfigurationError(
            f"to: {target} is there and is no table of step times; expected a new file, or an earlier table "
            "to replace. Name another one."
        )


def _report(measured: MeasuredSteps, target: Path) -> None:
    """Print what was read, what the table has, and what to make of it."""
    show(f"read      {plural(measured.files, 'log')} with steps")
    for phase in PHASES:
        rows = len(measured.rows[phase])
        show(f"{phase:<9} {measured.counted[phase]:,} steps in {plural(rows, 'row')}")
    if measured.mixed:
        show(f"among     prefill {measured.mixed:,} that continued answers too, each a token more")
    if measured.unplaced:
        show(
            f"left out  {measured.unplaced:,} steps that read prompts and continued answers at once: their "
            "log has the contexts of both together"
        )
    if measured.other_depth:
        show(f"left out  {measured.other_depth:,} decode steps with another number of draft tokens than most")
    for phase in PHASES:
        if not measured.are_whole(phase):
            show(
                f"warning   {measured.short[phase]:,} {phase} steps took less than a quarter of the median "
                "of their row: the log may not time whole steps. Measure with asynchronous scheduling off "
                "(docs/how-to/steps.md)."
            )
    show(f"wrote     {target}")
    tables = " ".join(
        f"cluster.calibration.{phase}_steps={target} cluster.calibration.{phase}_scale=1"
        for phase in PHASES
        if measured.rows[phase]
    )
    show(f"use       {tables}")
