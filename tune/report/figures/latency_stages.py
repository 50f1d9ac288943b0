"""Draw the stages that make up the time to first token of the best configurations."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from tune.report.figures.style import Figure, empty_figure, make_figure, numbers
from tune.spec.metrics import TTFT, TTFT_MEAN

MAX_BARS = 8
"""Number of configurations figure; more bars do not fit a page."""

STAGES = {
    "queue_s": ("wait for prefill", "var(--stage-1)"),
    "prefill_s": ("prefill", "var(--stage-2)"),
    "transfer_s": ("KV transfer", "var(--stage-3)"),
    "slot_s": ("wait for a decode slot", "var(--stage-4)"),
    "first_step_s": ("first decode step", "var(--stage-5)"),
}
"""Name and colour of each stage by its column, in the order in which a request passes them."""

TITLE = f"Where does the {TTFT.title} go?"


def latency_stages(valid: pd.DataFrame) -> Figure:
    """Draw the mean time of each stage, s, stacked, for the best ranked trials that record the stages."""
    known = valid.dropna(subset=["rank"])
    known = known[known[list(STAGES)].notna().any(axis=1)].sort_values("rank").head(MAX_BARS)
    if known.empty:
        return empty_figure(
            "stages", TITLE, "Left out: no valid measurement records the stages of its requests."
        )
    bars = zip(known["rank"], known["number"], strict=True)
    names = [f"#{rank:.0f} · trial {number}" for rank, number in bars]
    figure = go.Figure()
    for column, (name, colour) in STAGES.items():
        if known[column].notna().any():
            figure.add_trace(
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
    figure.update_layout(barmode="stack", legend={"traceorder": "normal"})
    figure.update_xaxes(title="mean over requests, s")
    figure.update_yaxes(autorange="reversed", title="rank and trial")
    caption = (
        f"The best ranked trials with recorded stages, n = {len(known)}. Each stage is a mean over requests; "
        f"together they add up to the {TTFT_MEAN.label}."
        if len(known) > 1
        else "Stages of one trial, n = 1. Each stage is a mean over requests; together they add up to the "
        f"{TTFT_MEAN.label}."
    )
    return make_figure("stages", TITLE, caption, figure, 150 + 34 * len(known))
