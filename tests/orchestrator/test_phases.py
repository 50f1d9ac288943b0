"""Test how the time of an attempt is divided into phases."""

from __future__ import annotations

from contextlib import suppress

from support.still_clock import StillClock

from tune.orchestrator.phases import PhaseTimer


def test_every_second_counts_to_the_innermost_phase() -> None:
    clock = StillClock()
    timer = PhaseTimer(clock)
    clock.pass_s(1.0)
    with timer.phase("bring_up_s"):
        clock.pass_s(2.0)
    with timer.phase("probes_s"):
        clock.pass_s(4.0)
        with timer.phase("drain_s"):
            clock.pass_s(8.0)
        clock.pass_s(16.0)
    clock.pass_s(32.0)
    spent = timer.record()
    assert (spent.bring_up_s, spent.probes_s, spent.drain_s) == (2.0, 20.0, 8.0)
    assert (spent.warm_up_s, spent.search_s) == (0.0, 0.0), "what is outside all phases is in none"


def test_a_phase_that_raises_is_counted_and_ends() -> None:
    clock = StillClock()
    timer = PhaseTimer(clock)
    with suppress(ZeroDivisionError), timer.phase("warm_up_s"):
        clock.pass_s(3.0)
        clock.pass_s(1 / 0)
    clock.pass_s(5.0)
    assert timer.record().warm_up_s == 3.0


def test_a_phase_that_goes_on_is_counted_up_to_now() -> None:
    clock = StillClock()
    timer = PhaseTimer(clock)
    with timer.phase("probes_s"):
        clock.pass_s(3.0)
        assert timer.record().probes_s == 3.0
