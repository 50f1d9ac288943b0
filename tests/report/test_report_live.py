"""The page is rewritten while a study runs: at intervals, at little cost, and without ending the study."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.still_clock import StillClock

from tune.errors import ConfigurationError
from tune.report.live_report import MAX_SHARE, MIN_INTERVAL_S, LiveReport


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
    assert 1 <= written <= 1 + spent_s / MIN_INTERVAL_S
    assert (written - 1) * write_s <= MAX_SHARE * spent_s + 1e-6


def test_first_trial_gives_a_page_at_once_and_later_ones_wait() -> None:
    clock, pages = StillClock(), []
    live = LiveReport(lambda: pages.append(clock.now_s), print, clock)
    for _ in range(5):
        live.update()
        clock.now_s += MIN_INTERVAL_S / 2
    assert pages == [100.0, 100.0 + MIN_INTERVAL_S, 100.0 + 2 * MIN_INTERVAL_S]


def test_page_that_cannot_be_written_is_said_once_and_the_study_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = StillClock()

    def write() -> None:
        raise ConfigurationError("reports: cannot be written")

    live = LiveReport(write, print, clock)
    for _ in range(3):
        live.update()
        clock.now_s += 2 * MIN_INTERVAL_S
    assert capsys.readouterr().out == (
        "the report was not rewritten, the study goes on: reports: cannot be written\n"
    )
