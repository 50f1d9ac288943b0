"""Check that no request of an earlier run was left when the probe began."""

from __future__ import annotations

from collections.abc import Mapping

from tune.analysis.counter_values import counter_value
from tune.analysis.run_checks.run_evidence import Examined, RunEvidence, not_counted
from tune.records.scrapes import METRICS_FILE, total


def examine_leftovers(run: RunEvidence) -> Examined:
    """Return what frontends and workers held at the last scrape before the first query."""
    last = {
        scrape.process: (line, scrape)
        for line, scrape in enumerate(run.scrapes, start=1)
        if scrape.at_s < run.began_at_s and scrape.samples
    }
    counts = {
        name: held
        for name, (_, scrape) in last.items()
        if (held := _held(run, name, scrape.samples)) is not None
    }
    holding = {name: held for name, held in counts.items() if held}
    if holding:
        found = [
            f"{held:.0f} requests at {run.place(name)}, "
            f"{run.began_at_s - last[name][1].at_s:.1f} s before the first query"
            for name, held in holding.items()
        ]
        lines = tuple(f"{run.file(METRICS_FILE)}:{last[name][0]}" for name in holding)
        return Examined("off", "; ".join(found), lines)
    expected = run.servers or dict.fromkeys(scrape.process for scrape in run.scrapes)
    if not counts:
        return not_counted("no frontend and no worker was counted before the first query")
    text = f"none at {len(counts)} of {len(expected)} frontends and workers before the first query"
    if uncounted := [name for name in expected if name not in counts]:
        return not_counted(f"{text}; not counted: {', '.join(uncounted)}", run.file(METRICS_FILE))
    return Examined("as_meant", text, (run.file(METRICS_FILE),))


def _held(run: RunEvidence, name: str, samples: Mapping[str, float]) -> float | None:
    """Return the requests that a process holds by its counters, None where it shows none."""
    signals, metrics = run.engine.signals, run.engine.metrics
    if name.startswith("frontend"):
        return counter_value(samples, signals.frontend_in_flight)
    counted = [counter_value(samples, signals.in_flight)]
    counted += [
        next((value for metric in names if (value := total(samples, metric)) is not None), None)
        for names in (metrics.running, metrics.waiting)
    ]
    known = [value for value in counted if value is not None]
    return max(known) if known else None
