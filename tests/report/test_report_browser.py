"""Test the page in a real browser: figures are drawn, the table works, and nothing is logged."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.chromium import CHROMIUM, HEADLESS, opened
from support.synthetic_posterior import learned_study
from support.synthetic_search import searched_trial
from support.synthetic_study import mixed, study

from tune.report.page import write_report

FLAGS = [
    *HEADLESS,
    *("--virtual-time-budget=20000", "--enable-logging=stderr", "--window-size=1280,4000", "--dump-dom"),
]
FRAME = """<body><iframe src="{src}" style="width:{width_px}px;height:844px;border:0"></iframe>
<pre id="browser-result"></pre><script>
setInterval(() => {{
  const inner = document.querySelector("iframe").contentDocument?.getElementById("browser-result");
  if (inner?.textContent) document.getElementById("browser-result").textContent = inner.textContent;
}}, 50);
</script></body>"""
USE_TABLE = Path(__file__).parent / "use_the_table.js"
READ_PAGE = Path(__file__).parent / "read_the_page.js"
CHOOSE_CURVE = Path(__file__).parent / "choose_load_curve.js"
DRAW_LEARNED = Path(__file__).parent / "draw_learned_figures.js"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_browser_draws_figures_and_table_works(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=40), mixed(40))
    result = _run_in_page(page, USE_TABLE.read_text(), tmp_path / "profile")
    _assert_table_works(result)
    drawn = dict(result["drawn"])
    assert set(drawn) == {
        *("ttft_p99", "tpot_p99", "user_speed", "importance", "slices-target_qps", "history", "stages")
    }
    assert all(marks >= 4 for marks in drawn.values())
    line_px, expected_px = result["limit"]
    assert line_px == pytest.approx(expected_px, abs=1)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_browser_draws_the_selected_load_curve(tmp_path: Path) -> None:
    outcomes = [searched_trial(0), searched_trial(1, prefill=13), searched_trial(2, prefill=12)]
    page = write_report(tmp_path / "report", study(), outcomes)
    result = _run_in_page(page, CHOOSE_CURVE.read_text(), tmp_path / "profile")
    assert result["first"] == ["rates-0", 10, 10]
    assert result["next"] == ["rates-1", 10, 10]
    assert result["note"].startswith("13P5D")
    capacity = "16.05 QPS verified, 16.3 QPS missed, estimated capacity 16.2 QPS. Cost: 5 probes"
    assert capacity in result["note"]
    assert result["fromRow"] == ["rates-0", 10, 10]
    assert result["probes"] == ["18", "16.4", "16.6", "16.3", "16.05"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_browser_draws_the_learned_figures(tmp_path: Path) -> None:
    outcomes, proposals, posterior = learned_study()
    page = write_report(tmp_path / "report", study(), outcomes, posterior=posterior, proposals=proposals)
    result = _run_in_page(page, DRAW_LEARNED.read_text(), tmp_path / "profile")
    assert result["marks"] == {"predicted": 2 * 15 + 16 + 13, "parameters": 2 * 8}
    assert result["label"].startswith("<b>trial 0</b> · 14P4D")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_screen_reader_finds_names_headings_and_explanations(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=40), mixed(40))
    result = _run_in_page(page, READ_PAGE.read_text(), tmp_path / "profile", "--window-size=1280,800")
    levels = [level for level, _ in result["headings"]]
    assert levels[:2] == [1, 2]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert [text for level, text in result["headings"] if level == 2] == [
        *("The answer", "Figures", "Every configuration", "The question and its rules", "Words", "Provenance")
    ]
    assert result["landmarks"] == [1, 1, 1]
    assert result["unnamed"] == result["repeatedIds"] == result["brokenLinks"] == []
    assert result["undescribed"] == result["tablesWithoutHeads"] == result["shortAlternatives"] == 0
    assert result["sorted"] == "ascending"
    assert {"baseline", "slo", "p99"} <= set(result["terms"])
    assert len(result["explained"]) > 20, "the meaning of a term shows where it has the focus"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_first_screen_holds_the_answer_the_picture_and_the_command(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=40), mixed(40))
    result = _run_in_page(page, READ_PAGE.read_text(), tmp_path / "profile", "--window-size=1280,800")
    assert result["width"][0] <= result["width"][1]
    assert max(result["top"].values()) < 800, result["top"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_phone_needs_no_sideways_scroll_and_shows_the_answer_first(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=40), mixed(40))
    result = _run_in_page(page, READ_PAGE.read_text(), tmp_path / "profile", width_px=390)
    scrolled_px, window_px = result["width"]
    assert scrolled_px <= window_px == 390
    assert result["top"][".headline"] < 400
    assert result["top"][".tiles"] < 844


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_page_of_2000_trials_asks_for_nothing_when_it_opens(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=2000), mixed(2000))
    with opened(page, tmp_path / "profile") as tab:
        names = tab.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in names if not name.startswith(("data:", "blob:"))] == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_page_of_2000_trials_builds_one_window_of_rows(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=2000), mixed(2000))
    assert page.stat().st_size < 2e6
    result = _run_in_page(page, READ_PAGE.read_text(), tmp_path / "profile", "--window-size=1280,800")
    assert result["rows"] == 25


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext is installed")
def test_printed_table_has_its_heads_on_every_page(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=60), mixed(60))
    pdf = tmp_path / "page.pdf"
    flags = [flag for flag in FLAGS if not flag.startswith(("--dump-dom", "--window-size"))]
    printing = [f"--print-to-pdf={pdf}", "--no-pdf-header-footer", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [str(CHROMIUM), *flags, *printing, page.as_uri()], capture_output=True, timeout=120, check=True
    )
    text = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True)
    pages = [
        sheet for sheet in text.stdout.split("\f") if re.search(r"^ *\d+ +\d+ +1\dP\dD", sheet, re.MULTILINE)
    ]
    assert pages
    assert all({"Rank", "Verdict", "Source"} <= set(sheet.split()) for sheet in pages)
    assert "output tokens/s per GPU" in text.stdout, "the figures are drawn"


def _run_in_page(
    page: Path, script: str, profile: Path, *flags: str, width_px: int | None = None
) -> dict[str, Any]:
    """Run `script` at the end of the page and return the JSON it leaves; nothing may be logged.

    A window has at least 500 px: a narrower page is shown in a frame.
    """
    waited = "while (!globalThis.tunePage) await new Promise((done) => setTimeout(done, 20));"
    names = "const { LABELS, drawings, drawFigure } = globalThis.tunePage;"
    element = f'<pre id="browser-result"></pre><script type="module">{waited}{names}{script}</script></body>'
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", element), encoding="utf-8")
    shown, narrow = page, []
    if width_px:
        shown, narrow = page.with_name("frame.html"), ["--allow-file-access-from-files"]
        shown.write_text(FRAME.format(src=page.name, width_px=width_px), encoding="utf-8")
    run = subprocess.run(
        [str(CHROMIUM), *FLAGS, *flags, *narrow, f"--user-data-dir={profile}", shown.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in run.stderr, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return _result_of(run.stdout)


def _result_of(dom: str) -> dict[str, Any]:
    """Return the JSON in the element "result"."""
    match = re.search(r'<pre id="browser-result">(.*?)</pre>', dom, re.DOTALL)
    assert match
    assert match[1], "the script in the page did not reach its end"
    result: dict[str, Any] = json.loads(html.unescape(match[1]))
    return result


def _assert_table_works(result: dict[str, Any]) -> None:
    assert result["byRank"] == [str(n) for n in range(1, 26)]
    most, least = ([float(text) for text in result[key] if text[0].isdigit()] for key in ("most", "least"))
    assert len(most) > 20
    assert most == sorted(most, reverse=True)
    assert least == sorted(least)
    assert least[0] < most[-1]
    assert result["sorted"] == "ascending"
    assert result["notFeasible"]
    assert "feasible" not in result["notFeasible"]
    failed = sum(o.status == "failed" for o in mixed(40))
    assert failed
    assert result["found"] == f"{failed} of 40 shown"
    assert result["command"].startswith("python -m tune split.prefill_workers=")
    assert result["bottleneck"].startswith("Bottleneck: prefill; p99 TTFT uses 94 % of its limit")
    assert (
        "one more prefill worker, 15P3D: split.prefill_workers=15 split.decode_workers=3"
        in result["bottleneck"]
    )
    assert {"Where the time to first token goes", "How full the pools are"} <= set(result["tables"])
    assert result["label"].endswith(
        "<br>SLO held in 4 of 5 shuffles, p99 TTFT 4.22 ± 0.300 s, p99 TPOT 59.0 ± 1.00 ms"
    )
    assert {"–", "5 of 5"} <= set(result["held"])
    assert result["opened"]
