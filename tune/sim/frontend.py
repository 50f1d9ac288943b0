"""Model each frontend as a single server that passes on every streamed message in order."""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray, IntArray

BIN_S = 0.05
"""Width in seconds of the bins in which messages are counted, far below the seconds in which load changes."""

MAX_BINS = 1 << 18
"""Largest number of bins; they are wider in a longer run: 0.25 s for 1,000,000 queries at 16/s."""


def frontends_delay_s(
    first_s: FloatArray, done_s: FloatArray, messages: IntArray, message_s: float, frontends: int
) -> tuple[FloatArray, FloatArray]:
    """Return the delays of `frontend_delay_s` where the load client gives requests to `frontends` in turn.

    Requests are in the order of their arrival.
    """
    first_delay_s, last_delay_s = np.empty_like(first_s), np.empty_like(done_s)
    for begin in range(frontends):
        own = slice(begin, None, frontends)
        first_delay_s[own], last_delay_s[own] = frontend_delay_s(
            first_s[own], done_s[own], messages[own], message_s
        )
    return first_delay_s, last_delay_s


def frontend_delay_s(
    first_s: FloatArray, done_s: FloatArray, messages: IntArray, message_s: float
) -> tuple[FloatArray, FloatArray]:
    """Return how long the first and the last message of each answer spend in one frontend, seconds, (n,).

    Each answer sends its `messages` evenly between `first_s` and `done_s`; each takes `message_s` of work. A
    message waits for the work that is left, W = max(0, W + new work - width) from bin to bin (Lindley's
    recursion in fluid form), or, if that is shorter, for the mean wait of a queue with steady load rho < 1,
    message_s x rho / (2 - 2 rho) (Pollaczek-Khinchine formula for fixed service times). Waits are
    interpolated linearly between bins.
    """
    if message_s == 0 or not len(first_s):
        return np.zeros_like(first_s), np.zeros_like(done_s)
    width_s = max(BIN_S, float(done_s.max()) / MAX_BINS)
    begin, end = (first_s / width_s).astype(np.int64), (done_s / width_s).astype(np.int64)
    bins = int(end.max()) + 2
    per_bin_s = messages * message_s / (end - begin + 1)
    change_s = np.bincount(begin, per_bin_s, bins) - np.bincount(end + 1, per_bin_s, bins)
    work_s = np.cumsum(change_s)
    surplus_s = np.cumsum(work_s - width_s)
    left_s = surplus_s - np.minimum(np.minimum.accumulate(surplus_s), 0.0)
    busy_frac = np.clip(work_s / width_s, 0.0, 1.0)
    steady_s = message_s * busy_frac / (2 - 2 * np.minimum(busy_frac, 1 - message_s / width_s / 2))
    wait_s = np.maximum(left_s, np.minimum(steady_s, width_s))
    waits_s = (between_bins(moment_s, wait_s, width_s) for moment_s in (first_s, done_s))
    first_wait_s, last_wait_s = waits_s
    return first_wait_s + message_s, last_wait_s + message_s


def between_bins(moment_s: FloatArray, values: FloatArray, width_s: float) -> FloatArray:
    """Return the `values` (bins,) at the ends of bins, interpolated linearly at moments before the last end.

    It has the bits of np.interp, which looks each moment up by bisection, in a third of its time.
    """
    ends_s = np.arange(1, len(values) + 1) * width_s
    slopes = np.diff(values) / np.diff(ends_s)
    after = (moment_s / width_s).astype(np.int64)
    after -= ends_s[np.maximum(after - 1, 0)] > moment_s
    after += ends_s[after] <= moment_s
    last = np.maximum(after - 1, 0)
    return np.where(after > 0, slopes[last] * (moment_s - ends_s[last]) + values[last], values[0])
