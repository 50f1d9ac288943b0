"""The question a study asks and the rules it was asked under, as rows of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from tune.engines.registry import ENGINES
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.backend_label import backend_label
from tune.report.capacity_text import probes_in_all, searched
from tune.report.trial_status import TRIAL_STATUS_WORDS, TRIAL_STATUSES, trial_status
from tune.spec.load import Slo
from tune.spec.space import Dimension, GraphFamilyDimension

SEARCHES = {
    "surrogate": "calibrated simulator",
    "tpe": "TPE",
    "random": "random",
    "grid": "grid",
    "gp": "Gaussian process",
}


def limits(slo: Slo) -> str:
    """The limits in a phrase; says so where one is lifted."""
    ttft = "p99 TTFT without limit" if slo.ttft_p99_s is None else f"p99 TTFT within {slo.ttft_p99_s:g} s"
    tpot = (
        "p99 TPOT without limit" if slo.tpot_p99_s is None else f"p99 TPOT within {slo.tpot_p99_s * 1e3:g} ms"
    )
    return f"{ttft}, {tpot}"


def rule_rows(study: StudyRecord, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """(what, value) rows; `outcomes` holds each trial once."""
    rack = (
        f"{study.hardware}: {study.nodes} nodes × {study.gpus_per_node} GPUs = {study.gpus} GPUs, "
        "all of them counted, idle ones included"
    )
    rows = [
        ("Maximise", "output tokens/s per allocated GPU"),
        ("Subject to", limits(study.slo)),
        ("Rack", rack),
        ("Model", study.model),
        ("Serving stack", study.stack),
        ("Search", _search(study)),
        ("Trials", _trials(study, outcomes)),
        ("GPU-hours", _gpu_hours(study, outcomes)),
    ]
    if any(map(searched, outcomes)):
        rows.append(("Probes", probes_in_all(outcomes)))
    attempts = [attempt for outcome in outcomes for attempt in outcome.attempts]
    if attempts and study.backend != "sim":
        began, ended = min(a.started_at for a in attempts), max(a.ended_at for a in attempts)
        rows.append(("Ran", f"{_minute(began)} to {_minute(ended)}"))
    return rows


def _minute(stamp: str) -> str:
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def space_rows(study: StudyRecord) -> list[dict[str, str]]:
    """One row a dimension of the space: name, path, range, unit."""
    return [
        {
            "name": name,
            "path": _setting(d, study.engine),
            "extent": formatting.extent(d),
            "unit": formatting.unit(d) or formatting.NOTHING,
        }
        for name, d in study.space.items()
    ]


def _setting(dimension: Dimension, engine: str) -> str:
    """Return what an override would name; a rule for CUDA graph sizes sets what the engine calls them."""
    if not isinstance(dimension, GraphFamilyDimension) or engine not in ENGINES:
        return dimension.path
    return f"{dimension.path}.{ENGINES[engine].settings.KEYS['graph_batch_sizes']}"


def _search(study: StudyRecord) -> str:
    name = SEARCHES[study.search.name or "tpe"]
    if not study.space:
        return "none: a single configuration"
    if study.search.name in ("tpe", "gp"):
        name += f" after {formatting.plural(study.search.startup_trials, 'random trial')}"
    start = ", starting from the baseline" if study.baseline else ""
    return f"{name}{start}; seed {study.seed}; {study.parallel} at a time"


def _trials(study: StudyRecord, outcomes: Sequence[Outcome]) -> str:
    counts = Counter(trial_status(outcome) for outcome in outcomes)
    parts = [f"{counts[v]:,} {TRIAL_STATUS_WORDS[v]}" for v in TRIAL_STATUSES if counts[v]]
    done = f"{len(outcomes):,} different, {study.n_trials:,} planned" if study.space else f"{len(outcomes):,}"
    return f"{done}: {', '.join(parts)}" if parts else done


def _gpu_hours(study: StudyRecord, outcomes: Sequence[Outcome]) -> str:
    spent = formatting.format_figure(sum(outcome.gpu_hours for outcome in outcomes), 4)
    budget = "no budget set" if study.max_gpu_hours is None else f"budget {study.max_gpu_hours:,g}"
    return f"{spent} {backend_label(study.backend, study.engine).cost}, {budget}"
