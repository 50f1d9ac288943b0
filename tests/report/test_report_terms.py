"""Test that terms are explained where they stand, once a section, with the glossary's words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tune.report.terms import Explainer, page_terms
from tune.spec.metrics import SHOWN_LIMITS

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
TERMS = page_terms(SHOWN_LIMITS)


def plain(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html)


def test_first_use_in_a_section_is_marked_and_later_ones_are_not() -> None:
    explain = Explainer(TERMS).mark
    text = "The SLO holds: p99 TTFT is low. The SLO is strict."
    first, again, other = explain(text, "a"), explain(text, "a"), explain(text, "b")
    assert first.count("<dfn>SLO</dfn>") == 1
    assert "<dfn>" not in again
    assert other == first
    assert plain(first) == plain(again) == text


@pytest.mark.parametrize(
    "text", ["study.name=split", "prefill.max_num_tokens=1", "decode_max_batch_size", "a/slo", "baselines"]
)
def test_parts_of_settings_and_of_other_words_are_not_terms(text: str) -> None:
    assert Explainer(TERMS).mark(text, "a") == text


def test_text_stays_text() -> None:
    assert plain(Explainer(TERMS).mark("<b>SLO</b> & 5", "a")) == "&lt;b&gt;SLO&lt;/b&gt; &amp; 5"


def test_every_term_of_the_glossary_document_has_its_words() -> None:
    """docs/glossary.md is the authority: a meaning on the page is its sentence there, or begins it."""
    document = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", GLOSSARY.read_text(encoding="utf-8"))
    for name in ("SLO", "split", "shuffle", "baseline", "capacity", "verified rate", "GPU-hours", "probe"):
        meaning = next(term.meaning for term in TERMS if term.name == name)
        assert meaning.split(", in blocks")[0].rstrip(".") in document, name
