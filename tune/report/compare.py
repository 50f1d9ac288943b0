"""Compare two trials, or the best trials of two studies: settings that differ, and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tune.analysis.ranking import rank
from tune.analysis.slo import figure_s
from tune.core.differences import leaf_differences
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.outcome import Outcome
from tune.records.posterior_summary import read_posterior
from tune.report.formatting import format_figure, format_latency, signed_percent
from tune.report.model_error_text import change_phrase, simulated_change
from tune.report.trial_status import describe_verdict
from tune.spec.metrics import LATENCY_P99, OUTPUT_TPS_PER_GPU, SHOWN_LIMITS
from tune.spec.trial import TrialSpec

_Row = tuple[str, str, str, str]
"""Name, value of the first trial, value of the second trial, relative change."""


def render_comparison(runs: Path, a: str, b: str) -> str:
    """Render a table of the settings that differ between two trials, and of their results.

    Parameters
    ----------
    runs
        The folder that holds the studies.
    a, b
        STUDY/TRIAL_ID, or STUDY for the best trial of a study.

    Returns
    -------
    str
        Aligned lines without a final newline.

    Raises
    ------
    ConfigurationError
        If `a` or `b` names no measured trial.
    """
    (spec_a, outcome_a), (spec_b, outcome_b) = _find(runs, a), _find(runs, b)
    settings = list(leaf_differences(spec_a.model_dump(mode="json"), spec_b.model_dump(mode="json")))
    rows = [
        ("", f"{a}", f"{b}", ""),
        ("trial", spec_a.trial_id, spec_b.trial_id, ""),
        *((path, str(left), str(right), "") for path, left, right in settings),
        *_results(outcome_a, outcome_b),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    change = simulated_change(outcome_a, outcome_b)
    if change:
        throughput = signed_percent(change.change_frac)
        lines.append(f"{throughput} {OUTPUT_TPS_PER_GPU.unit}: {change_phrase(change)}")
    return "\n".join(line.rstrip() for line in lines)


def _find(runs: Path, name: str) -> tuple[TrialSpec, Outcome]:
    """Return spec and outcome of a trial named STUDY/TRIAL_ID or STUDY; raises ConfigurationError."""
    study, _, trial_id = name.partition("/")
    folder = StudyFolder(runs / study)
    if not trial_id:
        ranked = rank(folder.outcomes(), read_posterior(folder.root))
        trial_id = ranked[0]["trial_id"] if ranked else "-"
    trial = folder.trial(trial_id)
    spec, outcome = trial.read_spec(), trial.read_outcome()
    if spec is None or outcome is None:
        studies = ", ".join(sorted(path.parent.name for path in runs.glob("*/study.json"))) or "none"
        raise ConfigurationError(
            f"{name}: no measured trial of that name in {runs}; expected STUDY or STUDY/TRIAL_ID. "
            f"Studies there: {studies}."
        )
    return spec, outcome


def _results(a: Outcome, b: Outcome) -> Iterator[_Row]:
    """Yield the rows of status, throughput, latencies and cost."""

    def row(name: str, left: float | None, right: float | None, show: Callable[[float | None], str]) -> _Row:
        """Return one row with the relative change from `left` to `right`."""
        change = signed_percent(right / left - 1) if left and right else ""
        return name, show(left), show(right), change

    yield "status", describe_verdict(a), describe_verdict(b), ""
    throughput = f"{OUTPUT_TPS_PER_GPU.label} {OUTPUT_TPS_PER_GPU.unit}"
    yield row(throughput, a.output_tps_per_gpu, b.output_tps_per_gpu, format_figure)
    for limit in dict.fromkeys((*SHOWN_LIMITS, LATENCY_P99, *a.constraints.used, *b.constraints.used)):
        left, right = (figure_s(limit, outcome.statistics_of(limit.latency)) for outcome in (a, b))
        yield row(limit.label, left, right, partial(format_latency, limit.latency))
    yield row("GPU-hours", a.gpu_hours, b.gpu_hours, format_figure)
