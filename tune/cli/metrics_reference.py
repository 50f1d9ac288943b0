"""Render docs/reference/metrics.md: every metric, statistic and limit of tune.spec.metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tune.spec.metrics import (
    LATENCIES,
    LIMITS,
    LOADGEN_LIMITS,
    RATES,
    SCHEDULED_TPS,
    STATISTICS,
    USER_TPS,
    LatencyLimit,
    LatencyMetric,
    RateMetric,
    Statistic,
)

_INTRODUCTION = """\
# Metrics

Every metric, generated from `tune/spec/metrics.py`: `make reference` writes this page, and a test compares
it. Records hold SI units; reports show the label and the unit of the column "shown as". The lower value
of a metric with the direction "lower" is the better one.
"""

_METRIC_HEAD = ("name", "meaning", "unit", "direction", "formula", "source", "shown as")


def render_metrics() -> str:
    """Render the page as Markdown."""
    lines = [
        _INTRODUCTION,
        *_table("Latencies", _METRIC_HEAD, map(_latency_cells, LATENCIES)),
        "A latency is one value per answered request. `outcome.json` holds its statistics.",
        "",
        *_table("Throughput", _METRIC_HEAD, map(_rate_cells, (*RATES, SCHEDULED_TPS, USER_TPS))),
        f"`{RATES[0].name}` ranks the trials. `{SCHEDULED_TPS.name}` is in LoadGen's logs only; "
        "action=calibrate",
        f"compares it. `{USER_TPS.name}` is shown in figures and in ranking.csv only.",
        "",
        *_table(
            "Statistics",
            ("name", "meaning", "formula"),
            map(_statistic_cells, STATISTICS),
        ),
        *_table("Limits", ("setting", "shown as", "judged by"), map(_limit_cells, LIMITS)),
        "A limit is set with `slo.NAME=SECONDS`; null lifts it.",
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a section with one table, a blank line last."""
    yield from (f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|")
    for cells in rows:
        yield f"| {' | '.join(cells)} |"
    yield ""


def _latency_cells(metric: LatencyMetric) -> tuple[str, ...]:
    """Return the row of a latency."""
    meaning, shown = f"{metric.title}{metric.title_suffix}", f"{metric.label}, {metric.shown_unit}"
    return f"`{metric.field}`", meaning, metric.unit, metric.direction, metric.formula, metric.source, shown


def _rate_cells(metric: RateMetric) -> tuple[str, ...]:
    """Return the row of a figure of throughput."""
    shown = f"{metric.label}, {metric.unit}"
    name = f"`{metric.name}`"
    return name, metric.title, metric.unit, metric.direction, metric.formula, metric.source, shown


def _statistic_cells(statistic: Statistic) -> tuple[str, ...]:
    """Return the row of a statistic."""
    return f"`{statistic.name}`", statistic.title, statistic.formula


def _limit_cells(limit: LatencyLimit) -> tuple[str, ...]:
    """Return the row of a limit."""
    judges = "LoadGen and tune" if limit.key in LOADGEN_LIMITS else "tune"
    return f"`slo.{limit.key}`", f"{limit.label}, {limit.latency.shown_unit}", judges
