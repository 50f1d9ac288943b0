"""Write the HTML page of a study: one file that a browser shows without loading anything else."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly

from tune.analysis.range_ends import RangeEnd
from tune.analysis.ranking import rank, write_ranking
from tune.core.files import make_folder, write_text
from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import KindPosterior, PosteriorSummary
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report import formatting
from tune.report.backend_label import backend_label
from tune.report.capacity_text import is_capacity_search
from tune.report.figures.all_figures import study_figures
from tune.report.plotly_basic import NOTICE, compressed_plotlyjs
from tune.report.ranking_csv import write_ranking_csv
from tune.report.sections.answer import answer
from tune.report.sections.confirmed import confirmation_section
from tune.report.sections.learned import LearnedSection, learned_section
from tune.report.sections.setup import rule_rows, space_rows
from tune.report.sections.trials_table import trials_table
from tune.report.sections.verdict_counts import verdict_lines
from tune.report.terms import Explainer, page_terms
from tune.report.trial_status import TRIAL_STATUS_MEANING, TRIAL_STATUS_WORDS, distinct_trials


def write_report(
    folder: Path,
    study: StudyRecord,
    outcomes: Sequence[Outcome],
    *,
    confirmation: Confirmation | None = None,
    posterior: PosteriorSummary | None = None,
    proposals: Sequence[Proposal] = (),
    ends: Sequence[RangeEnd] = (),
    running: bool = False,
) -> Path:
    """Write `index.html`, ranking.json and ranking.csv into `folder`.

    The bytes depend on the records only, not on the order of `outcomes`.

    Parameters
    ----------
    folder
        The folder of the report; it is made if it does not exist.
    study, outcomes
        The study and its trials on record; one that was proposed again appears once.
    confirmation
        What the confirmation of the best configurations found, or None.
    posterior, proposals
        What a surrogate search learned, or None, which changes the ranking; what it predicted of each trial.
    ends
        The ends of ranges at which the recommended values lie, see `checked_range_ends`.
    running
        Whether the study goes on, so that the page says what holds so far.

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
    learned = learned_section(study, trials, posterior, proposals, confirmation) if posterior else None
    page = render_page(
        study,
        trials,
        ranking,
        confirmation,
        learned,
        predicted=posterior.kinds if posterior else (),
        proposals=proposals,
        ends=ends,
        running=running,
    )
    make_folder(folder, parents=True)
    write_text(folder / "index.html", page)
    write_ranking(folder, ranking)
    ranks = {row["trial_id"]: row["rank"] for row in ranking}
    write_ranking_csv(folder, study, trials, ranks, confirmation)
    return folder / "index.html"


def render_page(
    study: StudyRecord,
    trials: Sequence[Outcome],
    ranking: Sequence[dict[str, Any]],
    confirmation: Confirmation | None = None,
    learned: LearnedSection | None = None,
    *,
    predicted: Sequence[KindPosterior] = (),
    proposals: Sequence[Proposal] = (),
    ends: Sequence[RangeEnd] = (),
    running: bool = False,
) -> str:
    """Return the HTML of the page.

    `trials` holds each trial once; `ranking` lists its rows best first; the others are those of `answer`.
    """
    environment = Environment(
        loader=PackageLoader("tune.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plotly_json"] = lambda spec: embed(to_json_plotly(spec))
    ranks = {row["trial_id"]: row["rank"] for row in ranking}
    terms = page_terms(study.slo.shown)
    return environment.get_template("index.html").render(
        study=study,
        backend=backend_label(study.backend, study.engine),
        sections=_sections(confirmation, learned),
        explain=Explainer(terms).mark,
        rules=rule_rows(study, trials),
        space=space_rows(study),
        answer=answer(
            study,
            trials,
            list(ranks),
            confirmation,
            predicted,
            proposals=proposals,
            ends=ends,
            running=running,
        ),
        confirmed=confirmation and confirmation_section(study, trials, confirmation, next(iter(ranks), "")),
        table=pack(json.dumps(trials_table(study, trials, ranks), allow_nan=False, separators=(",", ":"))),
        trials=len(trials),
        verdicts=verdict_lines(trials),
        searched=any(map(is_capacity_search, trials)),
        learned=learned,
        figures=study_figures(study, trials, ranks),
        terms=terms,
        statuses=[
            {"word": word, "meaning": TRIAL_STATUS_MEANING[status]}
            for status, word in TRIAL_STATUS_WORDS.items()
        ],
        resume=formatting.command(study.command),
        provenance=provenance(study, trials),
        plotly_notice=NOTICE,
        plotly=Markup(compressed_plotlyjs()),
    )


def _sections(confirmation: Confirmation | None, learned: LearnedSection | None) -> list[tuple[str, str]]:
    """Return id and name of each section that the page links to."""
    return [
        ("answer", "Answer"),
        *([("confirmed", "Confirmed")] if confirmation else []),
        ("figures", "Figures"),
        *([("learned", "What was learned")] if learned else []),
        ("ranking", "Ranking"),
        ("rules", "Rules"),
        ("glossary", "Words"),
        ("provenance", "Provenance"),
    ]


def embed(text: str) -> Markup:
    """Return JSON for a script element: without `<`, which could end the element or open a comment."""
    return Markup(text.replace("<", "\\u003c"))


def pack(text: str) -> Markup:
    """Return text compressed, as base64; it is a tenth as long, and the page decompresses it."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii"))


def provenance(study: StudyRecord, trials: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Return rows of (name, value): what the study ran with, and the hashes that identify it."""
    facts = [
        ("Study", study.name),
        ("Study seed", str(study.seed)),
        *([("Configuration hash", study.base_hash)] if study.base_hash else []),
        ("Cluster hash", study.cluster_hash),
        *((f"Version of {name}", version) for name, version in study.versions.items()),
    ]
    recorded = [_recorded(trial.provenance) for trial in trials]
    for name in dict.fromkeys(key for one in recorded for key in one):
        values = {json.dumps(one[name], sort_keys=True) for one in recorded if name in one}
        text = min(values) if len(values) == 1 else f"{len(values):,} different values"
        facts.append((f"Trials' {name}", text))
    return facts


def _recorded(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a provenance holds beside what is shown elsewhere, evidence of the nodes by its names."""
    left_out = {"params", "overrides", "split", "parallelism", "evidence"}
    evidence: Mapping[str, Any] = provenance.get("evidence", {})
    found = {
        f"{name} on the nodes": text
        for part in ("versions", "hardware", "transport")
        for name, text in (evidence.get(part) or {}).items()
    }
    unknown = {"evidence that is missing": list(evidence["missing"])} if evidence.get("missing") else {}
    own = {name.replace("_", " "): value for name, value in provenance.items() if name not in left_out}
    return own | found | unknown
