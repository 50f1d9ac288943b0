"""List the figures of a study in the order of the page; a new figure adds one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tune.analysis.ranking import outcome_frame
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.figures.importance import importance_figure
from tune.report.figures.latency_stages import latency_stages
from tune.report.figures.load_curves import load_curves
from tune.report.figures.rate_sweep import is_rate_sweep, rate_sweep
from tune.report.figures.search_history import search_history
from tune.report.figures.slices import slices
from tune.report.figures.style import MAX_MARKS, TPS, Figure, column_of, empty_figure
from tune.report.figures.trade_off import trade_off
from tune.report.figures.user_speed import user_speed
from tune.report.setting_importance import setting_importance
from tune.report.trial_status import baseline_trial, trial_status


def study_figures(study: StudyRecord, trials: Sequence[Outcome], ranks: Mapping[str, int]) -> list[Figure]:
    """Return the figures of the page's section Figures.

    `trials` holds each trial once; `ranks` holds the rank of every measured trial by its id.
    """
    rows = trials_frame(study, trials, ranks)
    curves = load_curves(study, trials, ranks)
    valid = rows[rows["trial_status"].isin(["feasible", "some_shuffles", "slo_violated"])].dropna(
        subset=[TPS]
    )
    if valid.empty:
        reason = "No trial has a valid measurement, so there is nothing to draw."
        return [*curves, empty_figure("none", "Figures", reason)]
    drawn = valid[valid["rank"].rank() <= MAX_MARKS]
    return [
        *(trade_off(study, drawn, limit) for limit in study.slo.shown),
        user_speed(drawn),
        *(
            [rate_sweep(study, drawn)]
            if is_rate_sweep(study)
            else _settings_figures(study, trials, ranks, drawn)
        ),
        *curves,
        search_history(rows, drawn),
        latency_stages(valid),
    ]


def _settings_figures(
    study: StudyRecord, trials: Sequence[Outcome], ranks: Mapping[str, int], drawn: pd.DataFrame
) -> list[Figure]:
    """Return the figures of the settings of a study: their importance, and throughput over each."""
    if not study.space:
        return []
    importance = setting_importance(study, trials, ranks)
    return [importance_figure(study, importance, len(ranks)), slices(study, drawn, importance)]


def trials_frame(study: StudyRecord, trials: Sequence[Outcome], ranks: Mapping[str, int]) -> pd.DataFrame:
    """Return the frame of `trials` with trial status, rank, marks, and the limited figures as shown."""
    baseline = baseline_trial(study, trials)
    data = outcome_frame(trials)
    return data.assign(
        trial_status=[trial_status(o) for o in trials],
        feasible=[o.feasible for o in trials],
        rank=pd.Series([ranks.get(o.trial_id) for o in trials], dtype="float64"),
        baseline=[o is baseline for o in trials],
        best=[o.feasible and ranks.get(o.trial_id) == 1 for o in trials],
        **{
            column_of(limit): data[limit.key] * limit.latency.shown_scale
            for limit in study.slo.shown
            if column_of(limit) != limit.key
        },
    )
