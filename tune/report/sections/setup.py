"""Compute the section of the page about the study's question, its rules and its search space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.backend_label import backend_label
from tune.report.capacity_text import is_capacity_search, summarise_probes
from tune.report.study_end_text import describe_end
from tune.report.trial_status import TRIAL_STATUS_WORDS, TRIAL_STATUSES, trial_status
from tune.spec.backend_kinds import BACKEND_DECLARATIONS
from tune.spec.engine_table import settings_class
from tune.spec.load import Slo
from tune.spec.space import Dimension, GraphFamilyDimension

SEARCHES = {
    "surrogate": "surrogate: Bayesian optimisation with the calibrated simulator",
    "tpe": "TPE",
    "random": "random",
    "grid": "grid",
    "gp": "Gaussian process",
}
"""Name of each search on the page."""


def describe_limits(slo: Slo) -> str:
    """Return the latency limits as a phrase that also names a limit that is lifted."""
    limits_s = dict(slo.limits)
    phrases = (
        f"{limit.label} within {limit.show(limits_s[limit])}"
        if limit in limits_s
        else f"{limit.label} without limit"
        for limit in slo.shown
    )
    return ", ".join(phrases)


def rule_rows(study: StudyRecord, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Return rows of (name, value); `outcomes` holds each trial once."""
    rack = (
        f"{study.hardware}: {study.nodes} nodes × {study.gpus_per_node} GPUs = {study.gpus} GPUs, "
        "all of them count, idle ones included"
    )
    rows = [
        ("Question", study.question),
        ("Maximise", "output tokens/s per allocated GPU"),
        ("Subject to", describe_limits(study.slo)),
        ("Rack", rack),
        ("Model", study.model),
        ("Serving stack", study.stack),
        ("Search", _search(study)),
        ("Trials", _trials(study, outcomes)),
        ("GPU-hours", _gpu_hours(study, outcomes)),
    ]
    if any(map(is_capacity_search, outcomes)):
        rows.append(("Probes", summarise_probes(outcomes)))
    attempts = [attempt for outcome in outcomes for attempt in outcome.attempts]
    if attempts and BACKEND_DECLARATIONS[study.backend].capabilities.real_time:
        began, ended = min(a.started_at for a in attempts), max(a.ended_at for a in attempts)
        rows.append(("Ran", f"{_minute(began)} to {_minute(ended)}"))
    return rows


def _minute(stamp: str) -> str:
    """Return an ISO 8601 time to the minute, in UTC."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def space_rows(study: StudyRecord) -> list[dict[str, str]]:
    """Return one row per dimension of the search space: name, path, range and unit."""
    return [
        {
            "name": name,
            "path": _setting(dimension, study.engine),
            "range": formatting.value_range(dimension),
            "unit": formatting.unit(dimension, study.engine) or formatting.DASH,
        }
        for name, dimension in study.space.items()
    ]


def _setting(dimension: Dimension, engine: str) -> str:
    """Return the setting that a dimension overrides; for CUDA graph sizes, by the engine's name for them."""
    if not isinstance(dimension, GraphFamilyDimension):
        return dimension.path
    return f"{dimension.path}.{settings_class(engine).KEYS['graph_batch_sizes']}"


def _search(study: StudyRecord) -> str:
    """Return the search with its start, its seed and its number of parallel trials."""
    name = SEARCHES[study.search.name or "tpe"]
    if not study.space:
        return "none: a single configuration"
    if study.search.name in ("tpe", "gp"):
        name += f" after {formatting.plural(study.search.startup_trials, 'random trial')}"
    start = ", starting from the baseline" if study.baseline else ""
    return f"{name}{start}; seed {study.seed}; {study.parallel} at a time"


def _trials(study: StudyRecord, outcomes: Sequence[Outcome]) -> str:
    """Return how many trials are recorded and planned, and how many have each status."""
    counts = Counter(trial_status(outcome) for outcome in outcomes)
    parts = [
        f"{counts[status]:,} {TRIAL_STATUS_WORDS[status]}" for status in TRIAL_STATUSES if counts[status]
    ]
    done = f"{len(outcomes):,} different, {study.n_trials:,} planned" if study.space else f"{len(outcomes):,}"
    ended = describe_end(study)
    return (f"{done}: {', '.join(parts)}" if parts else done) + (f". Ended: {ended}." if ended else "")


def _gpu_hours(study: StudyRecord, outcomes: Sequence[Outcome]) -> str:
    """Return the GPU-hours of all trials and the budget."""
    spent = formatting.format_figure(sum(outcome.gpu_hours for outcome in outcomes), 4)
    budget = "no budget set" if study.max_gpu_hours is None else f"budget {study.max_gpu_hours:,g}"
    return f"{spent} {backend_label(study.backend, study.engine).cost}, {budget}"
