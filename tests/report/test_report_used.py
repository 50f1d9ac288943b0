"""The page of a search that learned, as people use it: first screen, in the dark, by keyboard, printed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.chromium import CHROMIUM, Tab, opened
from support.synthetic_posterior import interval, learned_study
from support.synthetic_study import study

from tune.analysis.ranking import rank
from tune.records.posterior_summary import KindPosterior
from tune.report.kind_label import kind_label
from tune.report.page import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed"),
]

POOL = {"tensor_parallel_size": 4}
QUESTION = (
    "Which split of the rack into prefill and decode workers, with which chunk size, decode batch, CUDA "
    "graph sizes and request rate, gives the most output tokens/s per GPU under the SLO?"
)
"""Two lines of the page, as that of the sweep of the split."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Yield the page of a study whose nearest other kinds were predicted, not measured."""
    outcomes, proposals, posterior = learned_study()
    record = study(base={"prefill": POOL, "decode": POOL}, question=QUESTION)
    best = next(o for o in outcomes if o.trial_id == rank(outcomes, posterior)[0]["trial_id"])
    assert best.output_tps_per_gpu
    labels = [
        kind_label(best, record),
        *(f"{prefill}P{18 - prefill}D TP4/TP4" for prefill in range(10, 3, -1)),
    ]
    medians = [
        best.output_tps_per_gpu * (1.03 - 0.01 * place if place else 1.0) for place in range(len(labels))
    ]
    kinds = tuple(
        KindPosterior(
            kind=str(label),
            trial_id=str(label),
            is_measured=not place,
            expected_output_tps_per_gpu=interval(0.9 * median, median, 1.1 * median),
        )
        for place, (label, median) in enumerate(zip(labels, medians, strict=True))
    )
    folder = tmp_path_factory.mktemp("used")
    page = write_report(
        folder, record, outcomes, posterior=posterior.model_copy(update={"kinds": kinds}), proposals=proposals
    )
    with opened(page, tmp_path_factory.mktemp("profile")) as shown:
        yield shown


def test_predicted_kinds_leave_the_first_screen_whole(tab: Tab) -> None:
    tab.resize(1280, 800)
    assert tab.evaluate('document.querySelectorAll(".kinds .expected").length') >= 4
    ends = tab.evaluate(
        '[".headline", ".kinds", "#answer .command"].map('
        "(part) => document.querySelector(part).getBoundingClientRect().bottom + scrollY)"
    )
    assert max(ends) <= 800, ends
    assert "So far predictions were" in tab.evaluate('document.querySelector("#answer .notes").textContent')
