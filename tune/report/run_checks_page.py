"""Render docs/reference/run-checks.md: what is checked of every live run, and from which metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from tune.analysis.run_checks.table import CHECKS
from tune.engines.base import Histogram, WorkerMetrics
from tune.engines.registry import adapter_named
from tune.spec.engine_table import ENGINES

_INTRODUCTION = """\
# Is this run what I think it is?

After every probe of a live deployment `tune` checks whether what was measured is what was meant, from what
the run left behind. Each check is `as meant`, `off` or `not counted`: evidence that is missing is said to
be missing, never taken for good. A check changes no figure and no verdict on the SLO; it says what the
figures are worth.

`python -m tune status study.name=X trial=ID` prints every check of a trial with what was expected, the file
(and line) that shows it, and what to do. The result of a trial in the terminal has one line, `checked`, and
one more for what is off; so do the page's notes and the details of a trial. `action=compare` names the
checks in which two trials differ. `ranking.csv` has the columns
`checks_off` and `checks_not_counted`, `outcome.json` the field `checks`, of the probe that is judged and of
every probe. A simulated run has none of this evidence and no checks.

Generated from `tune/analysis/run_checks/table.py` and the adapters of the engines: `make reference` writes
this page, and a test compares it.
"""


def render_checks() -> str:
    """Return the page as Markdown."""
    lines = [_INTRODUCTION]
    for kind in CHECKS:
        lines += [
            f"## {kind.title[0].upper()}{kind.title[1:]}",
            "",
            f"`{kind.name}`: {kind.claim}.",
            "",
            "| | |",
            "|---|---|",
            f"| read from | {kind.metrics} |",
            f"| expected | {kind.threshold} |",
            f"| why there | {kind.source} |",
            f"| what to do | {kind.remedy} |",
            "",
        ]
    lines += [
        "## Metrics of the engines",
        "",
        "Names in each engine's `/metrics`, which Dynamo's workers pass on at `stack.system_port`; the first",
        "that a worker shows counts. Frontends show `dynamo_frontend_inflight_requests`, workers also",
        "`dynamo_component_requests_total` and `dynamo_component_inflight_requests`. What an engine has no",
        "name for, or does not show, is not counted: TensorRT-LLM shows its own with",
        "`--publish-events-and-metrics` alone ([concepts.md](../concepts.md#bottleneck-and-recommendation)),",
        "and those of KV transfers where it returns the times of each request (`return_perf_metrics: true`).",
        "",
        f"| | {' | '.join(f'`{engine}`' for engine in ENGINES)} |",
        "|---" * (len(ENGINES) + 1) + "|",
        *_metric_rows(),
    ]
    return "\n".join(lines) + "\n"


_MEANINGS = {
    "running": "sequences in the batch",
    "waiting": "sequences before it",
    "failed_transfers": "failed KV transfers",
    "transfer_s": "time of a KV transfer",
    "transfer_bytes": "its size",
    "token_s": "time of a token",
    "request_s": "time of a request",
}
"""Meanings of the fields of WorkerMetrics that checks read."""


def _metric_rows() -> Iterator[str]:
    """Yield a row for each metric, with its names in every engine."""
    known = [adapter_named(engine).metrics for engine in ENGINES]
    for field in fields(WorkerMetrics):
        if field.name in _MEANINGS:
            cells = [
                ", ".join(f"`{_name(each)}`" for each in getattr(metrics, field.name)) for metrics in known
            ]
            yield f"| {_MEANINGS[field.name]} | {' | '.join(cells)} |"


def _name(metric: str | Histogram) -> str:
    """Return the name of a metric."""
    return metric if isinstance(metric, str) else metric.name
