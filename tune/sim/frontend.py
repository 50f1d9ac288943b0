"""The frontend passes on every streamed message, one at a time: what it cannot keep up with waits."""

from __future__ import annotations

import numpy as np

from tune.results.requests import FloatArray, IntArray

BIN_S = 0.05
"""Messages are counted in bins of this width, far below the seconds in which load changes."""


def frontend_delay_s(
    first_s: FloatArray, done_s: FloatArray, messages: IntArray, message_s: float
) -> tuple[FloatArray, FloatArray]:
    """Seconds that the first and the last message of each answer spend in the frontend, both shape (n,).

    Each answer sends its `messages` evenly between `first_s` and `done_s`, `message_s` of work each. Work
    left over from bin to bin: W = max(0, W + new work - width). Source: Lindley's recursion, in fluid form.
    """
    if message_s == 0 or not len(first_s):
        return np.zeros_like(first_s), np.zeros_like(done_s)
    begin, end = (first_s / BIN_S).astype(np.int64), (done_s / BIN_S).astype(np.int64)
    bins = int(end.max()) + 2
    per_bin_s = messages * message_s / (end - begin + 1)
    change_s = np.bincount(begin, per_bin_s, bins) - np.bincount(end + 1, per_bin_s, bins)
    surplus_s = np.cumsum(np.cumsum(change_s) - BIN_S)
    left_s = surplus_s - np.minimum(np.minimum.accumulate(surplus_s), 0.0)
    return left_s[begin] + message_s, left_s[end] + message_s
