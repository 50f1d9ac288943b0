"""Draw the progress of a study on a terminal: a bar and a table of the trials that run."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune.cli.study_progress import StudyProgress, best_text, duration, times_text

MAX_ROWS = 8
"""Number of running trials that are shown; chosen so that a small terminal shows the bar too."""

_REFRESHES_PER_S = 4


class LiveStudy(StudyProgress):
    """Draw the progress below all other lines of the terminal; nothing of it stays."""

    def __enter__(self) -> Self:
        self._live = Live(
            console=Console(stderr=True),
            get_renderable=lambda: render_progress(self),
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


def render_progress(progress: StudyProgress) -> RenderableType:
    """Return the bar of a study and a table of its running trials."""
    parts: list[RenderableType] = []
    if progress.preparation:
        done, total = progress.preparation
        parts.append(_bar(f"{progress.name}: the search learns the simulator", done, total, "prefill pools"))
    elif progress.n_trials > 1:
        parts.append(_bar(progress.name, progress.done, progress.n_trials, "trials"))
    parts.append(
        Text("  ".join(part for part in (times_text(progress), best_text(progress.best)) if part), "dim")
    )
    if progress.running:
        parts.append(_table(progress))
    return Group(*parts)


def _bar(title: str, done: int, total: int, unit: str) -> Table:
    """Return a bar in one line with its title and count."""
    line = Table.grid(padding=(0, 1))
    line.add_row(Text(title, "bold"), ProgressBar(total, done, width=30), Text(f"{done} of {total} {unit}"))
    return line


def _table(progress: StudyProgress) -> Table:
    """Return the table of the running trials, the one that runs longest first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("trial", justify="right", min_width=5)
    table.add_column("configuration", no_wrap=True)
    table.add_column("since", justify="right", min_width=5)
    table.add_column("does", no_wrap=True)
    table.add_column("known so far, queries/s", no_wrap=True)
    trials = list(progress.running.values())
    trials.sort(key=lambda trial: trial.begun_s)
    for trial in trials[:MAX_ROWS]:
        since = duration(progress.running_s(trial))
        table.add_row(str(trial.number), trial.configuration, since, trial.step, trial.known)
    if len(trials) > MAX_ROWS:
        table.add_row("", f"and {len(trials) - MAX_ROWS} more")
    return table
