"""Describe why a study ended, in one sentence."""

from __future__ import annotations

from tune.records.study_end import StudyEnd
from tune.records.study_record import StudyRecord
from tune.report.formatting import format_figure, plural

TRIALS_AT_ONE_RATE = 120
"""Trials at one rate each after which TPE was 3 % below the best of pd_split; 18 % after 40
(docs/benchmarks.md)."""

TRIALS_NEAR_THE_BEST = {"tpe": 32, "gp": 31, "random": 60}
"""Trials with a capacity each after which half of a method's searches were within 2 % of the best; of random
search fewer were after 60. Source: the searches on synthetic racks (docs/benchmarks.md)."""

SURROGATE_TRIALS_NEAR_THE_BEST = 5
"""Trials after which half of the searches by search=surrogate were within 2 % of the best. Source: as for
TRIALS_NEAR_THE_BEST."""


def describe_end(study: StudyRecord) -> str | None:
    """Return why the study ended and what goes on.

    Returns None while it runs, after a kill and for single trials.
    """
    end = study.ended
    if end is None:
        return None
    counts = plural(end.configurations, "different configuration")
    if end.infeasible:
        counts += f", {end.infeasible:,} of them infeasible"
    return f"{_reason(study, end)} ({counts}){_few_trials(study, end)}"


def _reason(study: StudyRecord, end: StudyEnd) -> str:
    """Return why the study ended, without what is on record."""
    if end.kind == "trials":
        return "all planned trials are on record; a larger study.n_trials goes on"
    reason, goes_on = {
        "points": (
            "every point of the space that can run is on record",
            "a wider sweep under this study.name goes on",
        ),
        "gain": (_gain(end), "a smaller study.min_gain goes on"),
        "budget": (
            f"the budget of {study.max_gpu_hours or 0:,g} GPU-hours is spent",
            "a larger study.max_gpu_hours goes on",
        ),
        "failures": ("trials failed in a row", "the same command tries them again"),
        "harness": ("what every trial needs is at fault,", "the same command goes on when it is mended"),
        "interrupted": ("interrupted", "the same command goes on"),
    }[end.kind]
    return f"{reason} after {end.proposed:,} of {study.n_trials:,} planned trials; {goes_on}"


def _gain(end: StudyEnd) -> str:
    """Return how little another trial is expected to gain."""
    if not end.expected_gain_frac:
        return "no other trial is expected to raise the best rate"
    percent = format_figure(end.expected_gain_frac * 100, 2)
    return f"another trial is expected to raise the best rate by {percent} %, less than study.min_gain,"


def _few_trials(study: StudyRecord, end: StudyEnd) -> str:
    """Return what answers sooner, where a search without a surrogate had few trials in a space of several."""
    paths = {dimension.path for dimension in study.space.values()}
    if end.kind != "trials" or len(paths) == 1 or study.search.name not in TRIALS_NEAR_THE_BEST:
        return ""
    if study.base.get("load", {}).get("mode") == "capacity":
        return _few_capacities(study)
    if "load.target_qps" not in paths or study.n_trials >= TRIALS_AT_ONE_RATE:
        return ""
    return (
        f". With {study.search.name}, {plural(study.n_trials, 'trial')} at one rate each are too few to come "
        "near the best: load.mode=capacity, under a study.name of its own, finds the highest rate of each "
        "configuration and needs fewer"
    )


def _few_capacities(study: StudyRecord) -> str:
    """Return how many trials come near the best, where a search for capacities had fewer."""
    needed = TRIALS_NEAR_THE_BEST[study.search.name or ""]
    if study.n_trials >= needed:
        return ""
    text = (
        f". With {study.search.name}, {plural(study.n_trials, 'trial')} seldom come near the best: half of "
        f"such searches need {needed} or more to come within 2 % of it"
    )
    if study.sweep and study.sweep.has_aggregated(study.base.get("split", {}).get("aggregated_workers", 0)):
        return text
    return (
        f"{text}. search=surrogate, under a study.name of its own, needs about "
        f"{SURROGATE_TRIALS_NEAR_THE_BEST} for that"
    )
