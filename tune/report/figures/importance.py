"""Draw how much each setting decides whether a configuration ranks among the best."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.figures.style import FEASIBLE, Figure, empty_figure, make_figure
from tune.report.setting_importance import MIN_TRIALS, best_count

NAME = "importance"
TITLE = "Which settings decide?"

BAR_PX, AROUND_PX = 34, 110


def importance_figure(study: StudyRecord, importance: Mapping[str, float], ranked: int) -> Figure:
    """Draw `importance` of each dimension as a bar; `ranked` is the number of ranked trials."""
    if not importance:
        reason = (
            f"Left out: it needs two settings that vary and {MIN_TRIALS} ranked trials; there are {ranked:,}."
        )
        return empty_figure(NAME, TITLE, reason)
    names = [formatting.setting_name(name, study.space[name]) for name in importance]
    shares = [100 * share for share in importance.values()]
    bars = go.Bar(
        y=names,
        x=shares,
        orientation="h",
        marker={"color": FEASIBLE},
        text=[f"{share:.0f} %" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure = go.Figure(bars)
    figure.update_xaxes(title="share of the importance, %", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    caption = (
        f"How differently each setting is distributed among the best {best_count(ranked)} of n = {ranked:,} "
        "ranked trials than among all of them (PED-ANOVA). The shares sum to 100 %. A setting that the best "
        "trials share scores high; one whose value hardly matters scores low."
    )
    return make_figure(NAME, TITLE, caption, figure, AROUND_PX + BAR_PX * len(names))
