"""Model each frontend as a single server that passes on every streamed message in order."""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled

BIN_S = 0.05
"""Width in seconds of the bins in which messages are counted, far below the seconds in which load changes."""

MAX_BINS = 1 << 18
"""Largest number of bins; they are wider in a longer run: 0.25 s for 1,000,000 queries at 16/s."""

BEGUN, ENDED = range(2)
"""Rows of a frontend's work by bin: that of answers that begin in it, and that ended in the one before."""


@compiled
def frontends_delay_s(
    first_s: FloatArray, done_s: FloatArray, messages: IntArray, message_s: float, frontends: int
) -> tuple[FloatArray, FloatArray]:
    """Return how long the first and the last message of each answer spend in their frontend, seconds, (n,).

    Parameters
    ----------
    first_s, done_s
        Times at which each answer begins and ends, in the order of arrival, shape (n,).
    messages
        Messages that each answer sends evenly in between, shape (n,).
    message_s
        Work of a message, seconds.
    frontends
        Number of frontends, to which the load client gives requests in turn.

    Returns
    -------
    tuple[FloatArray, FloatArray]
        A message waits for the work that is left, W = max(0, W + new work - width) from bin to bin (Lindley's
        recursion in fluid form), or, if that is shorter, for the mean wait of a queue with steady load
        rho < 1, message_s x rho / (2 - 2 rho) (Pollaczek-Khinchine formula for fixed service times). Waits
        are interpolated linearly between bins.
    """
    first_delay_s, last_delay_s = np.zeros_like(first_s), np.zeros_like(done_s)
    if message_s == 0:
        return first_delay_s, last_delay_s
    for begin in range(min(frontends, len(first_s))):
        latest_s = 0.0
        for answer in range(begin, len(done_s), frontends):
            latest_s = max(latest_s, done_s[answer])
        width_s = max(BIN_S, latest_s / MAX_BINS)
        work_s = np.zeros((2, int(latest_s / width_s) + 2))
        for answer in range(begin, len(done_s), frontends):
            first_bin, last_bin = int(first_s[answer] / width_s), int(done_s[answer] / width_s)
            per_bin_s = messages[answer] * message_s / (last_bin - first_bin + 1)
            work_s[BEGUN, first_bin] += per_bin_s
            work_s[ENDED, last_bin + 1] += per_bin_s
        wait_s = np.empty(work_s.shape[1])
        _wait_by_bin(work_s, message_s, width_s, wait_s)
        for answer in range(begin, len(done_s), frontends):
            first_delay_s[answer] = _between_bins(first_s[answer], wait_s, width_s) + message_s
            last_delay_s[answer] = _between_bins(done_s[answer], wait_s, width_s) + message_s
    return first_delay_s, last_delay_s


@compiled
def _wait_by_bin(work_s: FloatArray, message_s: float, width_s: float, wait_s: FloatArray) -> None:
    """Fill `wait_s` (bins,) with the wait at the end of each bin; `work_s` (2, bins) is BEGUN and ENDED."""
    busiest_frac = 1 - message_s / width_s / 2
    new_s = surplus_s = least_s = 0.0
    for place in range(len(wait_s)):
        new_s += work_s[BEGUN, place] - work_s[ENDED, place]
        surplus_s += new_s - width_s
        least_s = min(least_s, surplus_s)
        busy_frac = min(max(new_s / width_s, 0.0), 1.0)
        steady_s = message_s * busy_frac / (2 - 2 * min(busy_frac, busiest_frac))
        wait_s[place] = max(surplus_s - least_s, min(steady_s, width_s))


@compiled
def _between_bins(moment_s: float, wait_s: FloatArray, width_s: float) -> float:
    """Return the wait at a moment before the last end of a bin, interpolated linearly between the ends.

    It has the bits of np.interp, which looks a moment up by bisection.
    """
    after = int(moment_s / width_s)
    if max(after, 1) * width_s > moment_s:
        after -= 1
    if (after + 1) * width_s <= moment_s:
        after += 1
    if after <= 0:
        return float(wait_s[0])
    before_s, next_s = after * width_s, (after + 1) * width_s
    slope = (wait_s[after] - wait_s[after - 1]) / (next_s - before_s)
    return float(slope * (moment_s - before_s) + wait_s[after - 1])
