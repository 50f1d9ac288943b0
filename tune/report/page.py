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

from tune.report import words
from tune.report.answer import answer
from tune.report.belief import Learned, learned
from tune.report.confirmed import section
from tune.report.figures import figures
from tune.report.load_curves import load_curves
from tune.report.place import place_of
from tune.report.probes import searched
from tune.report.question import rules, space
from tune.report.table import table
from tune.report.verdict import VERDICT_MEANING, VERDICT_WORDS, incumbent, once, verdict
from tune.results.belief import Belief
from tune.results.confirmation import Confirmation
from tune.results.files import write_text
from tune.results.frame import frame, rank, write_ranking
from tune.results.outcome import Outcome
from tune.results.proposals import Proposal
from tune.results.record import StudyRecord


def write_report(
    folder: Path,
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    *,
    confirmation: Confirmation | None = None,
    belief: Belief | None = None,
    proposals: Sequence[Proposal] = (),
) -> Path:
    """Write `index.html`, ranking.json and ranking.csv into `folder`; returns the path of the page.

    `belief` and what `proposals` expected are told where the search learns the rack. The same outcomes give
    the same bytes. A trial that was proposed again appears once. Raises FixCommand where `folder` cannot be
    written.
    """
    trials = once(outcomes)
    ranking = rank(trials, belief)
    path = folder / "index.html"
    told = None if belief is None else learned(study, trials, belief, proposals)
    write_text(path, render(study, trials, ranking, confirmation, told))
    write_ranking(folder, ranking)
    return path


def render(
    study: StudyRecord,
    trials: Sequence[Outcome],
    ranking: Sequence[dict[str, Any]],
    confirmation: Confirmation | None = None,
    told: Learned | None = None,
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
    drawn = [*load_curves(study, trials, ranks), *figures(study, rows(study, trials, ranks))]
    return environment.get_template("index.html").render(
        study=study,
        place=place_of(study.place, study.stack),
        rules=rules(study, trials),
        space=space(study),
        answer=answer(study, trials, list(ranks), confirmation),
        confirmed=confirmation and section(study, trials, confirmation, next(iter(ranks), "")),
        table=embed(json.dumps(table(study, trials, ranks), allow_nan=False, separators=(",", ":"))),
        trials=len(trials),
        searched=any(map(searched, trials)),
        learned=told,
        figures=[
            (f, f.spec and embed(to_json_plotly(f.spec)), [embed(to_json_plotly(v.spec)) for v in f.views])
            for f in drawn
        ],
        verdicts=[{"word": VERDICT_WORDS[v], "meaning": VERDICT_MEANING[v]} for v in VERDICT_WORDS],
        resume=words.command(study.command),
        provenance=provenance(study, trials),
        plotly=Markup(get_plotlyjs()),
    )


def rows(study: StudyRecord, trials: Sequence[Outcome], ranks: Mapping[str, int]) -> pd.DataFrame:
    """The frame of `trials` with what the figures need beside it: verdict, rank, incumbent, TPOT in ms."""
    start = incumbent(study, trials)
    data = frame(trials)
    return data.assign(
        verdict=[verdict(o) for o in trials],
        feasible=[o.feasible for o in trials],
        rank=pd.Series([ranks.get(o.trial_id) for o in trials], dtype="float64"),
        incumbent=[o is start for o in trials],
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
