"""Test Ctrl-C while attempts go on without this process."""

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


def test_first_ctrl_c_is_noted_and_second_raises() -> None:
    with Interrupts() as interrupts:
        assert not interrupts.pressed
        signal.raise_signal(signal.SIGINT)
        assert interrupts.pressed
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handler_is_restored_after_the_block() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Interrupts():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ignored_sigint_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert not interrupts.pressed
