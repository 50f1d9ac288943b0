from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from tune.orchestrator.supervision.signals import STOP_SIGNALS, Interrupted, defer_signals, raise_first_signal


@pytest.fixture(autouse=True)
def orchestrator_handlers() -> Iterator[None]:
    """Install the handlers of an orchestrator, and afterwards those of the tests."""
    handler = raise_first_signal()
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    yield
    for number, former in before.items():
        signal.signal(number, former)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_only_the_first_signal_is_raised(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match=number.name) as raised:
        signal.raise_signal(number)
    assert raised.value.number == number
    for later in STOP_SIGNALS:
        signal.raise_signal(later)


def test_signal_is_deferred_to_the_end_of_the_block() -> None:
    done = False

    def work() -> None:
        nonlocal done
        with defer_signals(last=False):
            signal.raise_signal(signal.SIGUSR2)
            done = True

    with pytest.raises(Interrupted):
        work()
    assert done


def test_signal_to_another_thread_is_deferred_too() -> None:
    """A mask would not defer it: the kernel signals the other thread, Python runs the handler here."""
    done = False

    def work() -> None:
        nonlocal done
        with defer_signals(last=False):
            ended = threading.Event()
            other = threading.Thread(target=ended.wait)
            other.start()
            signal.pthread_kill(other.ident or 0, signal.SIGTERM)
            ended.set()
            other.join()
            done = True

    with pytest.raises(Interrupted):
        work()
    assert done


def test_signal_after_the_last_work_is_ignored() -> None:
    with defer_signals(last=True):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGUSR2)
