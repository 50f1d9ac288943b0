"""Test the page of the fault matrix: what held, what did not, and what did not run."""

from __future__ import annotations

from pathlib import Path

from support.fault_matrix import FAULTS
from support.fault_patches import PATCHES
from support.fault_table import PAGE, page

CASE = "test_a_fault_loses_nothing"
FIRST = f"""<testsuites><testsuite>
<testcase name="{CASE}[driver_killed-probing]"/>
<testcase name="{CASE}[driver_killed-queued]"><failure message="lost"/></testcase>
<testcase name="{CASE}[driver_killed-starting]"><skipped message="no Slurm"/></testcase>
<testcase name="test_a_kill_at_a_random_point_changes_no_result[3]"/>
<testcase name="test_a_fault_that_comes_back_is_named[a_second_driver_runs_the_study_too]"/>
</testsuite></testsuites>"""
SECOND = f"""<testsuite><testcase name="{CASE}[driver_killed-queued]"/>
<testcase name="{CASE}[disk_full-probing]"><error message="no disk"/></testcase></testsuite>"""


def test_page_says_what_held(tmp_path: Path) -> None:
    reports = [tmp_path / "first.xml", tmp_path / "second.xml"]
    reports[0].write_text(FIRST)
    assert "| driver killed | – | **none** | – | – | none | – | – |" in page(reports[:1])
    reports[1].write_text(SECOND)
    text = page(reports)
    assert "| driver killed | – | none | – | – | none | – | – |" in text
    assert "| disk full | – | – | – | – | **" in text
    assert "2 of 3 cells hold" in text
    assert "1 of 20 kills" in text
    assert "| a second driver runs the study too | second driver, probing | named |" in text


def test_page_has_every_fault() -> None:
    """The page is written anew when faults are added."""
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    for name in (*(fault.name for fault in FAULTS), *(patch.name for patch in PATCHES)):
        assert [row for row in rows if row.startswith(f"| {name} |")], name
