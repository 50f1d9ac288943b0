"""Explain the terms of the page where they stand, with the text of the glossary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from tune.spec.metrics import OUTPUT_TPS_PER_GPU, TPOT, TTFT, USER_TPS, LatencyLimit


@dataclass(frozen=True)
class Term:
    """Hold a term with its meaning, and the words by which the page's texts name it."""

    name: str
    meaning: str
    words: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Return the id of its entry in the page's glossary."""
        return "term-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


_FIRST = (
    Term(
        OUTPUT_TPS_PER_GPU.unit,
        "Output tokens per query x rate of completions between warm-up and last arrival / all allocated "
        "GPUs, idle ones included.",
    ),
    Term(USER_TPS.unit, f"{USER_TPS.formula}: how fast one user's answer grows, in output tokens/s."),
)
_REST = (
    Term(
        "SLO",
        "The limits (slo.*) that a run has to hold, each on a statistic of "
        f"{TTFT.label}, {TPOT.label} or latency.",
    ),
    Term("split", "The number of workers of each pool. 14P4D is 14 prefill and 4 decode workers."),
    Term(
        "14P4D TP4/TP4",
        "A split with its parallelism: tensor parallelism of the prefill workers, then of the decode "
        "workers. TP4xPP2 has two pipeline stages.",
    ),
    Term("prefill", "Reading a prompt and making its KV cache."),
    Term("decode", "Generating the answer, one token per sequence and step."),
    Term("KV cache", "Keys and values of all tokens of a sequence, in blocks."),
    Term(
        "CUDA graph",
        "A recorded decode step for one batch size, replayed without launching its kernels.",
        ("CUDA graphs", "CUDA graph"),
    ),
    Term(
        "shuffle",
        "One order of the dataset's lengths. All shuffles have equal lengths in another order.",
        ("shuffles", "shuffle"),
    ),
    Term("baseline", "The configuration as composed: trial 0."),
    Term("GPU-hours", "Allocated GPUs x the time for which they were held."),
    Term("probe", "One LoadGen run on a deployment.", ("probes", "probe")),
    Term(
        "full run",
        "A probe of the length that the benchmark demands; a short run has 1,200 requests at most.",
        ("full runs", "full run", "short run"),
    ),
    Term("verified rate", "Highest rate that held the SLO in a full run.", ("verified rate", "verified")),
    Term(
        "capacity",
        "Highest rate at which a deployment is estimated to hold its SLO, in half of all shuffles.",
        ("estimated capacity", "mean capacity", "capacity"),
    ),
    Term(
        "pool capacity",
        "What a pool sustains when the other pool never limits it.",
        ("pool capacity",),
    ),
    Term(
        "guaranteed rate",
        "Rate at which one further full run, on a new deployment and in a new shuffle, holds the SLO with "
        "the stated confidence.",
        ("guaranteed rate", "guaranteed"),
    ),
    Term(
        "bottleneck",
        "What limits the rate: prefill, decode slots, KV cache, decode steps, KV transfer, frontend, or the "
        "offered rate.",
    ),
    Term(
        "posterior",
        "What is known of the rack's parameters after the trials so far; the prior is what was known before.",
        ("posterior", "prior"),
    ),
)
"""Terms of every page before and after those of the metrics; docs/glossary.md is the authority on each."""


def page_terms(limits: Sequence[LatencyLimit]) -> tuple[Term, ...]:
    """Return the terms of a page in the order of its glossary, with the metrics of its limits."""
    latencies = dict.fromkeys(limit.latency for limit in limits)
    statistics = dict.fromkeys(limit.statistic for limit in limits)
    return (
        *_FIRST,
        *(
            Term(
                latency.label,
                f"{latency.title[0].upper()}{latency.title[1:]}{latency.title_suffix}: {latency.formula}.",
            )
            for latency in latencies
        ),
        *(
            Term(statistic.name, f"{statistic.title} over the answered requests of a run.")
            for statistic in statistics
        ),
        *_REST,
    )


class Explainer:
    """Mark the first use of every term in each section of one page."""

    def __init__(self, terms: Sequence[Term]) -> None:
        self._term_of = {word.lower(): term for term in terms for word in term.words or (term.name,)}
        words = sorted(self._term_of, key=len, reverse=True)
        self._pattern = re.compile(
            r"(?<![\w/=.-])(" + "|".join(map(re.escape, words)) + r")(?![\w/=-]|\.\w)", re.IGNORECASE
        )
        self._seen: set[tuple[str, str]] = set()

    def mark(self, text: str, section: str) -> Markup:
        """Return `text` as HTML, in which terms that are new in `section` are links to the glossary."""
        text = text.replace(" %", "\u00a0%")
        parts, end = [], 0
        for match in self._pattern.finditer(text):
            term = self._term_of[match[0].lower()]
            if (section, term.name) in self._seen:
                continue
            self._seen.add((section, term.name))
            parts += [escape(text[end : match.start()]), _link(term, match[0])]
            end = match.end()
        return Markup("").join([*parts, escape(text[end:])])


def _link(term: Term, word: str) -> Markup:
    """Return the mark of a term: its meaning shows on hover and on focus, and the link leads to its entry."""
    return Markup(
        '<a class="term" href="#{0}" aria-describedby="{0}" data-meaning="{1}"><dfn>{2}</dfn></a>'
    ).format(term.anchor, term.meaning, word)
