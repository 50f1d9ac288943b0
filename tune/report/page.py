"""One page a study: put together here, drawn by the browser, needing nothing but its own file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from tune.analysis.ranking import frame, rank, write_ranking
from tune.core.files import write_text
from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.backend_label import backend_label
from tune.report.capacity_text import searched
from tune.report.figures.all_figures import study_figures
from tune.report.figures.load_curves import load_curves
from tune.report.sections.answer import answer
from tune.report.sections.confirmed import confirmation_section
from tune.report.sections.learned import LearnedSection, learned_section
from tune.report.sections.setup import rule_rows, space_rows
from tune.report.sections.trials_table import table
from tune.report.trial_status import (
    TRIAL_STATUS_MEANING,
    TRIAL_STATUS_WORDS,
    baseline_trial,
    distinct_trials,
    trial_status,
)


def write_report(
    folder: Path,
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    *,
    confirmation: Confirmation | None = None,
    belief: PosteriorSummary | None = None,
    proposals: Sequence[Proposal] = (),
) -> Path:
    """Write `index.html`, ranking.json and ranking.csv into `folder`; returns the path of the page.

    `belief` and what `proposals` expected are told where the search learns the rack. The same outcomes give
    the same bytes. A trial that was proposed again appears once. Raises ConfigurationError where `folder` cannot be
    written.
    """
    trials = distinct_trials(outcomes)
    ranking = rank(trials, belief)
    path = folder / "index.html"
    told = None if belief is None else learned_section(study, trials, belief, proposals)
    write_text(path, render(study, trials, ranking, confirmation, told))
    write_ranking(folder, ranking)
    return path


def render(
    study: StudyRecord,
    trials: Sequence[Outcome],
    ranking: Sequence[dict[str, Any]],
    confirmation: Confirmation | None = None,
    told: LearnedSection | None = None,
) -> str:
    """The page's HTML. `trials` holds each trial once; `ranking` is their ranking, best first."""
    environment = Environment(
        loader=PackageLoader("tune.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plotly_json"] = lambda spec: embed(to_json_plotly(spec))
    ranks = {row["trial_id"]: row["rank"] for row in ranking}
    drawn = [*load_curves(study, trials, ranks), *study_figures(study, report_frame(study, trials, ranks))]
    return environment.get_template("index.html").render(
        study=study,
        backend=backend_label(study.backend, study.engine),
        rules=rule_rows(study, trials),
        space=space_rows(study),
        answer=answer(study, trials, list(ranks), confirmation),
        confirmed=confirmation and confirmation_section(study, trials, confirmation, next(iter(ranks), "")),
        table=embed(json.dumps(table(study, trials, ranks), allow_nan=False, separators=(",", ":"))),
        trials=len(trials),
        searched=any(map(searched, trials)),
        learned=told,
        figures=[
            (f, f.spec and embed(to_json_plotly(f.spec)), [embed(to_json_plotly(v.spec)) for v in f.views])
            for f in drawn
        ],
        verdicts=[
            {"word": TRIAL_STATUS_WORDS[v], "meaning": TRIAL_STATUS_MEANING[v]} for v in TRIAL_STATUS_WORDS
        ],
        resume=formatting.command(study.command),
        provenance=provenance(study, trials),
        plotly=Markup(get_plotlyjs()),
    )


def report_frame(study: StudyRecord, trials: Sequence[Outcome], ranks: Mapping[str, int]) -> pd.DataFrame:
    """The frame of `trials` with what the figures need beside it: verdict, rank, baseline, TPOT in ms."""
    start = baseline_trial(study, trials)
    data = frame(trials)
    return data.assign(
        verdict=[trial_status(o) for o in trials],
        feasible=[o.feasible for o in trials],
        rank=pd.Series([ranks.get(o.trial_id) for o in trials], dtype="float64"),
        baseline=[o is start for o in trials],
        tpot_p99_ms=data["tpot_p99_s"] * 1e3,
    )


def embed(text: str) -> Markup:
    """JSON that may stand inside a script element: no `<` that could end it or open a comment."""
    return Markup(text.replace("<", "\\u003c"))


def provenance(study: StudyRecord, trials: Sequence[Outcome]) -> list[tuple[str, str]]:
    """(what, value) rows: what the study ran with and what pins it."""
    facts = [
        ("Study", study.name),
        ("Study seed", str(study.seed)),
        *([("Configuration hash", study.base_hash)] if study.base_hash else []),
        ("Cluster hash", study.cluster_hash),
        *((f"Version of {name}", version) for name, version in study.versions.items()),
    ]
    told = {"params", "overrides", "split"}
    for name in dict.fromkeys(key for o in trials for key in o.provenance if key not in told):
        values = {json.dumps(o.provenance[name], sort_keys=True) for o in trials if name in o.provenance}
        facts.append(
            (
                f"Trials' {name.replace('_', ' ')}",
                min(values) if len(values) == 1 else f"{len(values):,} different values",
            )
        )
    return facts
