"""Test the page of a search that learned in use: first screen, in the dark, by keyboard, printed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

A4_WIDTH_PX = 703
MOST_STOPS = 300
MEASURE_TEXT = Path(__file__).parent / "measure_text.js"
SHOWN = 'document.getElementById("shown").textContent'
PRINTED_HEADS = """[...document.querySelectorAll("#trials th:not(.setting)")].map(
    (head) => getComputedStyle(head, "::before").content)"""
POOL = {"tensor_parallel_size": 4}
OVERRIDES = [
    *("split.prefill_workers=26", "split.decode_workers=5", "split.head=decode"),
    *("prefill.tensor_parallel_size=2", "prefill.max_batch_size=16", "prefill.max_num_tokens=8192"),
    "decode.max_batch_size=256",
    "decode.cuda_graph_config.batch_sizes=[1,2,4,8,16,32,64,96,128,150,180,192,224,256]",
    "decode.scheduler_config={capacity_scheduler_policy:MAX_UTILIZATION,context_chunking_policy:null}",
    "load.target_qps=18.72",
]
"""Those of a sweep of everything."""
QUESTION = (
    "Which split of the rack into prefill and decode workers, with which chunk size, decode batch, CUDA "
    "graph sizes and request rate, gives the most output tokens/s per GPU under the SLO?"
)
"""Two lines of the page, as that of the sweep of the split."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Yield the page of a study whose nearest other kinds were predicted, not measured."""
    drawn, proposals, posterior = learned_study()
    outcomes = [o.model_copy(update={"provenance": {**o.provenance, "overrides": OVERRIDES}}) for o in drawn]
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


def test_every_text_can_be_read_in_the_dark(tab: Tab) -> None:
    """A contrast of 4.5 to 1 is level AA of WCAG 2.2, 1.4.3."""
    tab.resize(1280, 800)
    tab.emulate(dark=True)
    texts = _texts_with_figures(tab)
    assert all(text["isDark"] for text in texts)
    assert {"answer", "ranking", "rules", "learned"} <= {text["place"] for text in texts}
    assert sum(text["isDrawn"] for text in texts) > 50
    assert [text for text in texts if text["contrast"] < 4.5] == []


def test_print_is_dark_on_white_and_at_least_8_points(tab: Tab) -> None:
    """A page of A4 is 186 mm wide between its margins; a wider one would be scaled down."""
    tab.emulate(media="print", dark=True)
    tab.resize(A4_WIDTH_PX, 1000)
    texts = _texts_with_figures(tab)
    assert not any(text["isDark"] for text in texts)
    assert {"answer", "ranking"} <= {text["place"] for text in texts}
    assert [text for text in texts if text["contrast"] < 4.5] == []
    assert [text for text in texts if text["sizePt"] < 7.99] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= A4_WIDTH_PX
    heads = tab.evaluate(PRINTED_HEADS)
    assert heads[:4] == ['"Rank"', '"Trial"', '"Configuration"', '"Verdict"']
    assert "none" not in heads
    settings = tab.evaluate('document.querySelector("#trials .printed").checkVisibility()')
    assert settings, "the settings of a trial stand below its row"


def test_table_is_sorted_and_filtered_by_keyboard(tab: Tab) -> None:
    tab.resize(1280, 800)
    tab.emulate()
    _tab_to(tab, ".skip")
    tab.press("Enter")
    assert tab.evaluate("location.hash") == "#answer"

    _tab_to(tab, "#find")
    tab.call("Input.insertText", text="out of memory")
    assert tab.evaluate(SHOWN) == "2 of 16 shown"
    tab.call("Input.dispatchKeyEvent", type="keyDown", commands=["selectAll", "deleteBackward"])
    assert tab.evaluate(SHOWN) == "16 of 16 shown"

    _tab_to(tab, "#statuses input[value=infeasible]")
    tab.press(" ")
    assert tab.evaluate(SHOWN) == "14 of 16 shown"
    tab.press(" ")
    assert tab.evaluate(SHOWN) == "16 of 16 shown"

    output = tab.evaluate(
        '[...document.querySelectorAll("#trials th")].findIndex((th) => th.textContent.startsWith("Output"))'
    )
    _tab_to(tab, f"#trials [data-column='{output}']")
    for order in ("descending", "ascending"):
        tab.press("Enter")
        cells = tab.evaluate(
            '[...document.querySelectorAll("#trials tr.row")].map('
            f"(tr) => Number(tr.cells[{output}].textContent))"
        )
        rates = [cell for cell in cells if cell]
        assert len(rates) > 10
        assert rates == sorted(rates, reverse=order == "descending")
        assert tab.evaluate('document.activeElement.closest("th").getAttribute("aria-sort")') == order

    _tab_to(tab, "#trials .open")
    tab.press("Enter")
    assert tab.evaluate('document.activeElement.getAttribute("aria-expanded")') == "true"
    assert tab.evaluate('document.querySelectorAll("#trials tr.details").length') == 1


def _texts_with_figures(tab: Tab) -> list[dict[str, Any]]:
    """Return what every shown text looks like when all figures are drawn."""
    tab.evaluate("Promise.all(tunePage.drawings.map(tunePage.drawFigure))")
    texts: list[dict[str, Any]] = tab.evaluate(MEASURE_TEXT.read_text())
    return texts


def _tab_to(tab: Tab, selector: str) -> None:
    """Press the tabulator until an element has the focus, and shows it."""
    for _ in range(MOST_STOPS):
        tab.press("Tab")
        if tab.evaluate(f'document.activeElement.matches("{selector}")'):
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    pytest.fail(f"{selector} is not among the first {MOST_STOPS} stops of the tabulator")


@pytest.mark.parametrize("name", ["split", "cap"])
@pytest.mark.parametrize("width_px", [320, 360, 414])
def test_no_phone_scrolls_a_kept_report_sideways(
    name: str, width_px: int, root: Path, tmp_path: Path
) -> None:
    """One of them is confirmed: the longest marks below the names of kinds."""
    page = root / "reports" / "gallery" / name / "index.html"
    with opened(page, tmp_path / "profile", width_px, 1500) as tab:
        scrolled_px, shown_px = tab.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
    assert scrolled_px <= shown_px
