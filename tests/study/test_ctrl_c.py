"""Ctrl-C while attempts go on without this process."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tune.study.interrupts import Interrupts


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_is_noted_and_the_second_raises() -> None:
    with Interrupts() as interrupts:
        assert not interrupts.pressed
        signal.raise_signal(signal.SIGINT)
        assert interrupts.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_it_means_what_it_meant_before() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interrupts():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_where_it_is_ignored_it_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert not interrupts.pressed
