"""The page in a real browser: figures are drawn, the table sorts, filters and unfolds, nothing is logged."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.synthetic_belief import learned_study
from support.synthetic_search import searched
from support.synthetic_study import mixed, study

from tune.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update", "--disable-quic"),
    *("--virtual-time-budget=20000", "--enable-logging=stderr", "--window-size=1280,4000", "--dump-dom"),
]
SCRIPT = Path(__file__).parent / "work_the_page.js"
CHOOSE = Path(__file__).parent / "choose_a_curve.js"

LEARNED = Path(__file__).parent / "draw_what_was_learned.js"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_a_browser_draws_the_figures_and_works_the_table(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", study(n_trials=40), mixed(40))
    seen = _worked(page, SCRIPT.read_text(), tmp_path / "profile")
    _assert_table_works(seen)
    assert {name for name, _ in seen["drawn"]} == {"ttft", "tpot", "history", "map", "stages"}
    assert all(marks > 5 for _, marks in seen["drawn"])
    line_px, expected_px, axis = seen["limit"]
    assert axis == "log"
    assert line_px == pytest.approx(expected_px, abs=1)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_a_browser_draws_the_load_curve_that_is_chosen(tmp_path: Path) -> None:
    outcomes = [searched(0), searched(1, prefill=13), searched(2, prefill=12)]
    page = write_report(tmp_path / "report", study(), outcomes)
    seen = _worked(page, CHOOSE.read_text(), tmp_path / "profile")
    assert seen["first"] == ["rates-0", 5, 5]
    assert seen["next"] == ["rates-1", 5, 5]
    assert seen["said"].startswith("13P5D")
    assert "16.05 QPS held, 16.3 missed, boundary 16.2. 5 probes" in seen["said"]
    assert seen["fromRow"] == ["rates-0", 5, 5]
    assert seen["probes"] == ["18", "16.4", "16.6", "16.3", "16.05"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome is installed")
def test_a_browser_draws_what_the_search_learned(tmp_path: Path) -> None:
    outcomes, proposals, belief = learned_study()
    page = write_report(tmp_path / "report", study(), outcomes, belief=belief, proposals=proposals)
    seen = _worked(page, LEARNED.read_text(), tmp_path / "profile")
    assert seen["marks"] == {"expected": 2 * 15 + 16 + 13, "parameters": 2 * 8}
    assert seen["label"].startswith("<b>trial 0</b> · 14P4D")


def _worked(page: Path, script: str, profile: Path) -> dict[str, Any]:
    """What `script` leaves in the element "seen" of the page, run at its end; nothing may be logged."""
    act = f'<pre id="seen"></pre><script>{script}</script></body>'
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", act), encoding="utf-8")
    run = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in run.stderr, [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return _seen(run.stdout)


def _seen(dom: str) -> dict[str, Any]:
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found
    assert found[1], "the script in the page did not reach its end"
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


def _assert_table_works(seen: dict[str, Any]) -> None:
    assert seen["byRank"] == [str(n) for n in range(1, 26)]
    most, least = ([float(text) for text in seen[key] if text[0].isdigit()] for key in ("most", "least"))
    assert len(most) > 20
    assert most == sorted(most, reverse=True)
    assert least == sorted(least)
    assert least[0] < most[-1]
    assert seen["sorted"] == "ascending"
    assert seen["notFeasible"]
    assert "feasible" not in seen["notFeasible"]
    failed = sum(o.status == "failed" for o in mixed(40))
    assert failed
    assert seen["found"] == f"{failed} of 40 shown"
    assert seen["unfolded"].startswith("python -m tune split.prefill_workers=")
    assert seen["bottleneck"].startswith("What binds: prefill. p99 TTFT uses 94 % of its limit")
    assert (
        "one more prefill worker, 15P3D: split.prefill_workers=15 split.decode_workers=3"
        in seen["bottleneck"]
    )
    assert {"Where the time to first token goes", "How full the pools are"} <= set(seen["tables"])
    assert seen["label"].endswith("<br>SLO held in 4 of 5 orders, p99 TTFT 4.22 ± 0.300 s")
    assert {"–", "5 of 5"} <= set(seen["held"])
    assert seen["opened"]
