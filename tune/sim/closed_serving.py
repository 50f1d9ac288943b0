"""Simulate a closed loop: users who send their next query when they have the last answer."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tune.core.arrays import FloatArray
from tune.sim.closed_loop import serve_closed_loop
from tune.sim.closed_pools import ClosedPools, ClosedRequests, ClosedResult, ClosedRun
from tune.sim.decode_pool import empty_decode_result
from tune.sim.disaggregated import decode_work, served_by_two_pools, transfer_s
from tune.sim.prefill_pool import NO_PREFILL_TABLE, empty_prefill_result
from tune.sim.queues import UNASSIGNED
from tune.sim.ranks.ranked_decode import RankedWorker
from tune.sim.ranks.ranked_prefill import RankedReader
from tune.sim.routing import decode_router, entry_pool, route_by_frontend, route_by_worker
from tune.sim.served import Accepted, Served, answer_delays_s
from tune.sim.step_tables import prefill_table, warn_of_extrapolation
from tune.sim.worker_models import prefill_worker, rank_router, worker_slowdowns
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec


def serve_users(
    spec: TrialSpec, calibration: Calibration, requests: Accepted
) -> tuple[Accepted, Served, tuple[FloatArray, FloatArray]]:
    """Simulate the users of a closed loop.

    Parameters
    ----------
    spec
        Trial whose load has the number of users.
    calibration
        Scales and overheads of the hardware.
    requests
        The accepted requests in the order in which they are sent; their arrivals are not read.

    Returns
    -------
    tuple[Accepted, Served, tuple[FloatArray, FloatArray]]
        The requests with their arrivals; who served each and when; and when its user has its first and its
        last token, seconds, shape (n,).

    Notes
    -----
    How long a frontend holds an answer depends on all answers, and the next query depends on that. The loop
    runs twice: first with frontends that never wait, then with the waits that follow from it. The window in
    which usage is counted, up to the last arrival, is that of the first run, too.
    """
    hold_s = np.full(len(requests.prompt), calibration.frontend_message_s)
    sent, served = _serve(spec, calibration, requests, hold_s)
    first_delay_s, last_delay_s = answer_delays_s(spec, calibration, sent, served)
    sent, served = _serve(spec, calibration, sent, last_delay_s)
    done_s = served.done_s + last_delay_s
    return sent, served, (np.minimum(served.first_s + first_delay_s, done_s), done_s)


def _serve(
    spec: TrialSpec, calibration: Calibration, requests: Accepted, passed_on_s: FloatArray
) -> tuple[Accepted, Served]:
    """Simulate both pools; `passed_on_s` (n,) is how long frontends hold the last token of each answer."""
    count, window_s, rows = len(requests.prompt), requests.window_s, calibration.prefill_steps
    limits, steps, asked = decode_work(spec, calibration, requests)
    readers, decoders = (worker_slowdowns(spec, calibration, role) for role in ("prefill", "decode"))
    router = rank_router(calibration)
    pools = ClosedPools(
        RankedReader(prefill_worker(spec, calibration, window_s), spec.prefill.attention_ranks, router),
        RankedWorker(limits, spec.decode.attention_ranks, router),
        readers,
        decoders,
        prefill_table(rows) if rows else NO_PREFILL_TABLE,
        steps,
        float(steps.batch_s[1:].min() * decoders.min()),
        decode_router(spec, count),
    )
    users = ClosedRequests(
        spec.load.concurrency or 1,
        calibration.ttft_overhead_s,
        passed_on_s,
        requests.prompt,
        asked.prompt,
        asked.answer,
        asked.reserved,
        transfer_s(spec, calibration, spec.prefill, requests.prompt),
        transfer_s(spec, calibration, spec.decode, requests.prompt),
    )
    by_arrival, to_decode = np.arange(count), np.full(count, UNASSIGNED)
    if entry_pool(spec) == "decode":
        to_decode = route_by_frontend(spec, "decode", by_arrival)
        to_prefill = route_by_worker(spec, "prefill", by_arrival, to_decode)
    else:
        to_prefill = route_by_frontend(spec, "prefill", by_arrival)
    prefilled = empty_prefill_result(to_prefill, len(readers))
    decoded = empty_decode_result(to_decode, len(decoders))
    result = ClosedResult(np.zeros(count), prefilled, decoded)
    serve_closed_loop(ClosedRun(pools, users, result))
    window_s = window_s if math.isfinite(window_s) else float(result.sent_s[-1])
    warn_of_extrapolation(calibration, {"prefill": prefilled.steps, "decode": decoded.steps})
    sent = replace(requests, arrival_s=result.sent_s + calibration.ttft_overhead_s, window_s=window_s)
    kv_tokens = limits.kv_tokens * spec.decode.attention_ranks
    return sent, served_by_two_pools(prefilled, decoded, kv_tokens, window_s)
