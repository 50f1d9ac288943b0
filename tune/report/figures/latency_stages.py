"""Where the time of the best configurations goes before the first token."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.report.figures.style import Figure, empty_figure, make_figure, numbers

SHOWN = 8
"""Configurations drawn; more bars do not fit a page."""

STAGES = {
    "queue_s": ("wait for prefill", "var(--stage-1)"),
    "prefill_s": ("prefill", "var(--stage-2)"),
    "transfer_s": ("KV transfer", "var(--stage-3)"),
    "slot_s": ("wait for a decode slot", "var(--stage-4)"),
    "first_step_s": ("first decode step", "var(--stage-5)"),
}
"""Column, name and colour, in the order a request passes them."""

TITLE = "Where does the time to first token go?"


def stages(good: pd.DataFrame) -> Figure:
    """Mean seconds of each stage, stacked, of the best ranked trials that record them."""
    known = good.dropna(subset=["rank"])
    known = known[known[list(STAGES)].notna().any(axis=1)].sort_values("rank").head(SHOWN)
    if known.empty:
        return empty_figure(
            "stages", TITLE, "Left out: no valid measurement records the stages of its requests."
        )
    backends = zip(known["rank"], known["number"], strict=True)
    names = [f"#{rank:.0f} · trial {number}" for rank, number in backends]
    drawn = go.Figure()
    for column, (name, colour) in STAGES.items():
        if known[column].notna().any():
            drawn.add_trace(
                go.Bar(
                    y=names,
                    x=numbers(known[column]),
                    name=name,
                    orientation="h",
                    marker={"color": colour},
                    customdata=known["number"].to_numpy(),
                    hovertemplate=f"%{{text}}<br>{name} %{{x:.3g}} s<extra></extra>",
                    textposition="none",
                )
            )
    drawn.update_layout(barmode="stack", legend={"traceorder": "normal"})
    drawn.update_xaxes(title="mean over requests, s")
    drawn.update_yaxes(autorange="reversed", title="rank and trial")
    caption = (
        f"The best ranked trials that record it, n = {len(known)}; stages are means over requests and "
        "together make the mean TTFT."
        if len(known) > 1
        else "The trial's stages, n = 1, are means over requests; together they make its mean TTFT."
    )
    return make_figure("stages", TITLE, caption, drawn, 150 + 34 * len(known))
