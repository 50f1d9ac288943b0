"""Simulate a pool of prefill workers and a pool of decode workers, without feedback from one to the other.

A full decode pool does not slow the prefill pool, which hands its KV caches on.
"""

from __future__ import annotations

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.records.requests import PoolUse
from tune.sim.decode_loop import decode
from tune.sim.decode_pool import (
    DecodeRequests,
    DecodeResult,
    DecodeSteps,
    DecodeWorker,
    empty_decode_result,
)
from tune.sim.prefill_loop import prefill
from tune.sim.prefill_pool import NO_PREFILL_TABLE, PrefillRequests, PrefillResult, empty_prefill_result
from tune.sim.ranks.ranked_decode import RankedWorker, decode_by_ranks
from tune.sim.ranks.ranked_prefill import RankedReader, prefill_by_ranks
from tune.sim.routing import entry_pool, route_by_frontend, route_by_worker
from tune.sim.served import Accepted, Served, mean_over_window
from tune.sim.speculation import drafts_of, requests_in_steps, times_in_steps, worker_in_steps
from tune.sim.step_tables import prefill_table, warn_of_extrapolation
from tune.sim.worker_models import decode_worker, prefill_worker, rank_router, worker_slowdowns
from tune.spec.cluster import Calibration
from tune.spec.engine import Engine
from tune.spec.memory import kv_bytes_per_token
from tune.spec.trial import TrialSpec


def serve_by_two_pools(spec: TrialSpec, calibration: Calibration, accepted: Accepted) -> Served:
    """Simulate the prefill pool, the KV transfers and the decode pool, one after the other."""
    prefilled, worker = _run_prefill(spec, calibration, accepted)
    limits, decoded = _run_decode(spec, calibration, accepted, prefilled, worker)
    warn_of_extrapolation(calibration, {"prefill": prefilled.steps, "decode": decoded.steps})
    kv_tokens = limits.kv_tokens * spec.decode.attention_ranks
    return served_by_two_pools(prefilled, decoded, kv_tokens, accepted.window_s)


def served_by_two_pools(
    prefilled: PrefillResult, decoded: DecodeResult, kv_tokens: int, window_s: float
) -> Served:
    """Return who served each request and when.

    Parameters
    ----------
    prefilled, decoded
        Results of the pools.
    kv_tokens
        Cache tokens of a decode worker.
    window_s
        Time from the first arrival to the last, seconds.

    Returns
    -------
    Served
        With the means of what the workers counted over the window.
    """
    return Served(
        prefill_worker=prefilled.worker,
        decode_worker=decoded.worker,
        prefill_start_s=prefilled.start_s,
        prefill_done_s=prefilled.done_s,
        kv_arrived_s=decoded.ready_s,
        decode_start_s=decoded.start_s,
        first_s=decoded.first_s,
        done_s=decoded.done_s,
        pools=PoolUse(
            mean_over_window(prefilled.busy_s, window_s),
            mean_over_window(decoded.usage[:, 0], window_s),
            mean_over_window(decoded.usage[:, 1], window_s) / max(kv_tokens, 1),
        ),
    )


def _run_prefill(
    spec: TrialSpec, calibration: Calibration, accepted: Accepted
) -> tuple[PrefillResult, IntArray]:
    """Simulate the prefill pool; return its result, and the decode worker (n,) of every request."""
    count, entry = len(accepted.prompt), entry_pool(spec)
    by_arrival = np.arange(count)
    if entry == "decode":
        decode_worker = route_by_frontend(spec, "decode", by_arrival)
        worker = route_by_worker(spec, "prefill", by_arrival, decode_worker)
    else:
        worker = route_by_frontend(spec, "prefill", by_arrival)
    limits = prefill_worker(spec, calibration, accepted.window_s)
    slowdown = worker_slowdowns(spec, calibration, "prefill")
    send_s = transfer_s(spec, calibration, spec.prefill, accepted.prompt)
    prompts = PrefillRequests(accepted.arrival_s, accepted.prompt, send_s)
    result, ranks = empty_prefill_result(worker, len(slowdown)), spec.prefill.attention_ranks
    rows = calibration.prefill_steps
    table = prefill_table(rows) if rows else NO_PREFILL_TABLE
    if ranks > 1:
        reader = RankedReader(limits, ranks, rank_router(calibration))
        prefill_by_ranks(reader, slowdown, table, prompts, result)
    else:
        prefill(limits, slowdown, table, prompts, result)
    by_completion = np.argsort(result.done_s, kind="stable")
    if entry == "prefill":
        decode_worker = route_by_worker(spec, "decode", by_completion, result.worker)
    elif entry is None:
        decode_worker = route_by_frontend(spec, "decode", by_completion)
    return result, decode_worker


def _run_decode(
    spec: TrialSpec, calibration: Calibration, accepted: Accepted, prefilled: PrefillResult, worker: IntArray
) -> tuple[DecodeWorker, DecodeResult]:
    """Simulate the decode pool; return what its workers may do, and its result.

    `worker` (n,) is UNASSIGNED for a least-loaded router.
    """
    slowdown = worker_slowdowns(spec, calibration, "decode")
    limits, steps, asked = decode_work(spec, calibration, accepted)
    requests = DecodeRequests(
        order=np.argsort(prefilled.sent_s, kind="stable"),
        begun_s=prefilled.sent_s - transfer_s(spec, calibration, spec.prefill, accepted.prompt),
        sent_s=prefilled.sent_s,
        transfer_s=transfer_s(spec, calibration, spec.decode, accepted.prompt),
        prompt=asked.prompt,
        answer=asked.answer,
        reserved=asked.reserved,
    )
    result, ranks = empty_decode_result(worker, len(slowdown)), spec.decode.attention_ranks
    if ranks > 1:
        ranked = RankedWorker(limits, ranks, rank_router(calibration))
        decode_by_ranks(ranked, slowdown, steps, requests, result)
    else:
        decode(limits, slowdown, steps, requests, result)
    return limits, result


def decode_work(
    spec: TrialSpec, calibration: Calibration, requests: Accepted
) -> tuple[DecodeWorker, DecodeSteps, Accepted]:
    """Return what decode workers may do, how long their steps take, and what the requests ask of them.

    Parameters
    ----------
    spec, calibration
        The trial, and the scales and overheads of the hardware.
    requests
        The requests, whose window is that of the workers.

    Returns
    -------
    tuple[DecodeWorker, DecodeSteps, Accepted]
        With multi-token prediction all of them count steps of a sequence instead of tokens.
    """
    limits, steps = decode_worker(spec, calibration, requests.window_s)
    drafts = drafts_of(spec.decode, calibration)
    if drafts is None:
        return limits, steps, requests
    asked = requests_in_steps(requests, drafts, _draws(spec, len(requests.prompt)))
    return worker_in_steps(limits, drafts), times_in_steps(steps, drafts), asked


def _draws(spec: TrialSpec, count: int) -> np.random.RandomState:
    """Return random draws that depend on the shuffle and the number of requests."""
    words = [spec.load.shuffle_seed, count, spec.decode.draft_tokens]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))


def transfer_s(spec: TrialSpec, calibration: Calibration, engine: Engine, prompt: IntArray) -> FloatArray:
    """Return the seconds that KV caches take on the links of a worker, or of its rank with attention DP.

    Parameters
    ----------
    spec, calibration
        The trial, and the rate of a GPU's link.
    engine
        Engine of the worker that sends or receives.
    prompt
        Tokens of each cache, shape (n,).

    Returns
    -------
    FloatArray
        Seconds, shape (n,).
    """
    kv_bytes = prompt * kv_bytes_per_token(spec.model, spec.prefill)
    links = engine.gpus // engine.attention_ranks
    return kv_bytes / (calibration.kv_transfer_bytes_per_s * links)
