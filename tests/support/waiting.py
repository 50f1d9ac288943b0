"""Wait for events in tests."""

from __future__ import annotations

import time
from collections.abc import Callable

POLL_S = 0.02


def wait_for(condition: Callable[[], object], within_s: float = 90) -> None:
    """Return once `condition` holds; fail after `within_s`, which no machine should need."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {within_s:g} s"
        time.sleep(POLL_S)
