"""Hold what the pools of a deployment are given, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.records.requests import PoolUse
from tune.sim.frontend import frontends_delay_s
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


@dataclass(frozen=True, eq=False)
class Accepted:
    """Hold the accepted requests, arrays of shape (n,).

    `reserved` are the KV tokens that a worker reserves for each, `window_s` is the time from the first
    arrival to the last.
    """

    arrival_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray
    window_s: float


@dataclass(frozen=True, eq=False)
class Served:
    """Hold which worker served each request and when, arrays of shape (n,), and how full the workers were.

    `first_s` and `done_s` are when a worker made the first and the last token, before a frontend passed it
    on.
    """

    prefill_worker: IntArray
    decode_worker: IntArray
    prefill_start_s: FloatArray
    prefill_done_s: FloatArray
    kv_arrived_s: FloatArray
    decode_start_s: FloatArray
    first_s: FloatArray
    done_s: FloatArray
    pools: PoolUse


def mean_over_window(integral: FloatArray, window_s: float) -> FloatArray:
    """Return the mean over the window; zeros if a single query leaves no window."""
    return integral / window_s if window_s > 0 else np.zeros_like(integral)


def answer_delays_s(
    spec: TrialSpec, calibration: Calibration, accepted: Accepted, served: Served
) -> tuple[FloatArray, FloatArray]:
    """Return how long the frontends hold the first and the last token of each answer.

    Parameters
    ----------
    spec, calibration
        The trial, and the work of a message.
    accepted, served
        The requests, and when their tokens were made.

    Returns
    -------
    tuple[FloatArray, FloatArray]
        Seconds, shape (n,) each.
    """
    messages = -(-accepted.answer // spec.decode.tokens_per_message)
    return frontends_delay_s(
        served.first_s, served.done_s, messages, calibration.frontend_message_s, spec.split.frontends
    )
