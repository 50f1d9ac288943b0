"""Write the HTML page of a study: one file that a browser shows without loading anything else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from tune.analysis.ranking import rank, write_ranking
from tune.core.files import write_text
from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.backend_label import backend_label
from tune.report.capacity_text import is_capacity_search
from tune.report.figures.all_figures import study_figures
from tune.report.sections.answer import answer
from tune.report.sections.confirmed import confirmation_section
from tune.report.sections.learned import LearnedSection, learned_section
from tune.report.sections.setup import rule_rows, space_rows
from tune.report.sections.trials_table import trials_table
from tune.report.trial_status import TRIAL_STATUS_MEANING, TRIAL_STATUS_WORDS, distinct_trials
from tune.spec.metrics import LATENCIES, TPOT, TTFT


def write_report(
    folder: Path,
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    *,
    confirmation: Confirmation | None = None,
    posterior: PosteriorSummary | None = None,
    proposals: Sequence[Proposal] = (),
) -> Path:
    """Write `index.html`, ranking.json and ranking.csv into `folder`.

    The bytes depend on the records only, not on the order of `outcomes`.

    Parameters
    ----------
    folder
        The folder of the report; it is made if it does not exist.
    study
        The record of the study.
    outcomes
        The trials on record; one that was proposed again appears once.
    confirmation
        What the confirmation of the best configurations found, or None.
    posterior
        What a surrogate search learned, or None; it adds a section and changes the ranking.
    proposals
        The proposals of the study: they hold the predicted capacity of each trial.

    Returns
    -------
    Path
        The path of the page.

    Raises
    ------
    ConfigurationError
        If `folder` cannot be written.
    """
    trials = distinct_trials(outcomes)
    ranking = rank(trials, posterior)
    path = folder / "index.html"
    learned = None if posterior is None else learned_section(study, trials, posterior, proposals)
    write_text(path, render_page(study, trials, ranking, confirmation, learned))
    write_ranking(folder, ranking)
    return path


def render_page(
    study: StudyRecord,
    trials: Sequence[Outcome],
    ranking: Sequence[dict[str, Any]],
    confirmation: Confirmation | None = None,
    learned: LearnedSection | None = None,
) -> str:
    """Return the HTML of the page. `trials` holds each trial once; `ranking` lists its rows best first."""
    environment = Environment(
        loader=PackageLoader("tune.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plotly_json"] = lambda spec: embed(to_json_plotly(spec))
    ranks = {row["trial_id"]: row["rank"] for row in ranking}
    return environment.get_template("index.html").render(
        study=study,
        backend=backend_label(study.backend, study.engine),
        rules=rule_rows(study, trials),
        space=space_rows(study),
        answer=answer(study, trials, list(ranks), confirmation),
        confirmed=confirmation and confirmation_section(study, trials, confirmation, next(iter(ranks), "")),
        table=embed(json.dumps(trials_table(study, trials, ranks), allow_nan=False, separators=(",", ":"))),
        trials=len(trials),
        searched=any(map(is_capacity_search, trials)),
        learned=learned,
        figures=[
            (
                figure,
                figure.spec and embed(to_json_plotly(figure.spec)),
                [embed(to_json_plotly(view.spec)) for view in figure.views],
            )
            for figure in study_figures(study, trials, ranks)
        ],
        statuses=[
            {"word": word, "meaning": TRIAL_STATUS_MEANING[status]}
            for status, word in TRIAL_STATUS_WORDS.items()
        ],
        latencies=LATENCIES,
        statistics=dict.fromkeys(limit.statistic for limit in study.slo.shown),
        ttft=TTFT,
        tpot=TPOT,
        resume=formatting.command(study.command),
        provenance=provenance(study, trials),
        plotly=Markup(get_plotlyjs()),
    )


def embed(text: str) -> Markup:
    """Return JSON for a script element: without `<`, which could end the element or open a comment."""
    return Markup(text.replace("<", "\\u003c"))


def provenance(study: StudyRecord, trials: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Return rows of (name, value): what the study ran with, and the hashes that identify it."""
    facts = [
        ("Study", study.name),
        ("Study seed", str(study.seed)),
        *([("Configuration hash", study.base_hash)] if study.base_hash else []),
        ("Cluster hash", study.cluster_hash),
        *((f"Version of {name}", version) for name, version in study.versions.items()),
    ]
    shown_elsewhere = {"params", "overrides", "split"}
    for name in dict.fromkeys(key for o in trials for key in o.provenance if key not in shown_elsewhere):
        values = {json.dumps(o.provenance[name], sort_keys=True) for o in trials if name in o.provenance}
        facts.append(
            (
                f"Trials' {name.replace('_', ' ')}",
                min(values) if len(values) == 1 else f"{len(values):,} different values",
            )
        )
    return facts
