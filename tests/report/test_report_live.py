"""Test that the page is rewritten after each batch, at little cost, and never ends the study."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.still_clock import StillClock

from tune.errors import ConfigurationError
from tune.report.live_report import MAX_SHARE, LiveReport


@given(
    batches_s=st.lists(st.floats(0.01, 500.0), min_size=1, max_size=60),
    write_s=st.floats(0.001, 30.0),
)
def test_rewriting_takes_a_small_share_of_the_time(batches_s: list[float], write_s: float) -> None:
    clock = StillClock()
    began_s, written = clock.now_s, 0

    def write() -> None:
        nonlocal written
        written += 1
        clock.now_s += write_s

    live = LiveReport(write, print, clock)
    for batch_s in batches_s:
        clock.now_s += batch_s
        live.update()
    spent_s = clock.now_s - began_s
    assert written >= 1
    assert (written - 1) * write_s <= MAX_SHARE * spent_s + 1e-6


@pytest.mark.parametrize(("write_s", "pages"), [(0.3, 5), (0.5, 3)])
def test_every_batch_gives_a_page_where_that_costs_little(write_s: float, pages: int) -> None:
    """Batches of 11 s: 0.3 s are less than 3 % of one, 0.5 s of two."""
    clock, began_s = StillClock(), []

    def write() -> None:
        began_s.append(clock.now_s)
        clock.now_s += write_s

    live = LiveReport(write, print, clock)
    for _ in range(5):
        live.update()
        clock.now_s += 11.0
    assert began_s[0] == 100.0
    assert len(began_s) == pages


def test_page_that_cannot_be_written_is_said_once_and_the_study_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = StillClock()

    def write() -> None:
        raise ConfigurationError("reports: cannot be written")

    live = LiveReport(write, print, clock)
    for _ in range(3):
        live.update()
        clock.now_s += 60.0
    assert capsys.readouterr().out == (
        "the report was not rewritten, the study goes on: reports: cannot be written\n"
    )
