"""Simulate a deployment: arrivals pass the prefill pool, the KV transfer and the decode pool.

There is no feedback: a full decode pool does not slow the prefill pool, which hands its KV caches on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.records.requests import PoolUse, RequestLog, Stages
from tune.sim.admission import answered_tokens, rejections, reserved_kv_tokens
from tune.sim.decode_loop import decode
from tune.sim.decode_pool import DecodeRequests, DecodeResult
from tune.sim.frontend import frontends_delay_s
from tune.sim.prefill_loop import prefill
from tune.sim.prefill_pool import PrefillRequests, PrefillResult
from tune.sim.routing import entry_pool, route_by_frontend, route_by_worker
from tune.sim.worker_models import decode_worker, prefill_worker, worker_slowdowns
from tune.spec.cluster import Calibration
from tune.spec.engine import Engine
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import Role, Split
from tune.spec.trial import TrialSpec
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import request_lengths


def simulate(spec: TrialSpec, calibration: Calibration, single_pool: Role | None = None) -> RequestLog:
    """Simulate a run of the trial's load; equal arguments give equal bits.

    Parameters
    ----------
    spec
        Trial that is simulated.
    calibration
        Scales and overheads of the hardware.
    single_pool
        Pool that is simulated as if the other never limited it: for "prefill", answers have one token; for
        "decode", neither prefill nor KV transfers take time. None simulates both.

    Returns
    -------
    RequestLog
        TTFT = frontend + queue + prefill + KV transfer + wait for a decode slot + one decode step; each
        further token takes one step. A request that no engine accepts carries an error and takes no time.

    Raises
    ------
    ConfigurationError
        If a pool has no workers or the dataset is wrong.
    """
    scheduled_ns = arrivals_ns(spec.load)
    prompts, answer_tokens = request_lengths(spec.load, len(scheduled_ns))
    if single_pool == "prefill":
        answer_tokens = np.ones_like(answer_tokens)
        return simulate_requests(spec, calibration, scheduled_ns, (prompts, answer_tokens), answer_tokens)
    if single_pool == "decode":
        calibration = calibration.model_copy(update=_FREE_PREFILL)
    return simulate_requests(spec, calibration, scheduled_ns, (prompts, answer_tokens))


_FREE_PREFILL = {"prefill_scale": 1e-6, "kv_transfer_bytes_per_s": 1e18}
"""Calibration with which prefill and KV transfers take no time."""


def simulate_requests(
    spec: TrialSpec,
    calibration: Calibration,
    scheduled_ns: IntArray,
    lengths: tuple[IntArray, IntArray],
    max_answer: IntArray | None = None,
) -> RequestLog:
    """Simulate known requests.

    Parameters
    ----------
    spec
        Trial that is simulated; of its load, only the shuffle seed and the longest answer are used.
    calibration
        Scales and overheads of the hardware.
    scheduled_ns
        Arrivals, int64 nanoseconds, shape (n,).
    lengths
        Prompt and answer tokens, int64, shape (n,) each.
    max_answer
        Longest answer that each request allows, tokens, shape (n,), for which the engine reserves KV blocks.
        None stands for the dataset's longest, as in the benchmark.

    Returns
    -------
    RequestLog
        As `simulate` returns it.

    Raises
    ------
    ConfigurationError
        If a pool has no workers.
    """
    _require_both_pools(spec.split)
    prompt, answer = lengths[0], answered_tokens(spec, *lengths)
    if max_answer is None:
        max_answer = np.full_like(prompt, spec.load.dataset.longest_answer_tokens)
    error = rejections(spec, prompt, max_answer)
    is_accepted = error == ""
    accepted = _Accepted(
        arrival_s=scheduled_ns[is_accepted] / 1e9 + calibration.ttft_overhead_s,
        prompt=prompt[is_accepted],
        answer=answer[is_accepted],
        reserved=reserved_kv_tokens(spec, prompt[is_accepted], max_answer[is_accepted]),
        window_s=float(scheduled_ns[-1]) / 1e9,
    )
    prefilled, decode_worker = _run_prefill(spec, calibration, accepted)
    decoded = _run_decode(spec, calibration, accepted, prefilled, decode_worker)
    return RequestLog(
        scheduled_ns=scheduled_ns,
        first_token_ns=_all_ns(decoded.first_s, is_accepted),
        done_ns=_all_ns(decoded.done_s, is_accepted),
        input_tokens=prompt,
        output_tokens=np.where(is_accepted, answer, 0),
        prefill_worker=_all(prefilled.worker, is_accepted),
        decode_worker=_all(decoded.result.worker, is_accepted),
        error=error,
        stages=_stages(accepted, prefilled, decoded, is_accepted),
        pools=PoolUse(_mean(prefilled.busy_s, accepted.window_s), decoded.batch_mean, decoded.kv_used_frac),
    )


def _require_both_pools(split: Split) -> None:
    """Raise ConfigurationError if a pool has no workers."""
    if not (split.prefill_workers and split.decode_workers):
        raise ConfigurationError(
            f"split: {split.label} leaves a pool empty; the simulator needs split.prefill_workers and "
            "split.decode_workers of at least 1."
        )


@dataclass(frozen=True, eq=False)
class _Accepted:
    """Hold the accepted requests, arrays of shape (n,).

    `reserved` are the KV tokens that a decode worker reserves, `window_s` is the time from the first arrival
    to the last.
    """

    arrival_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray
    window_s: float


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Hold the result of the decode pool: token times as the client sees them (n,), and means per worker."""

    result: DecodeResult
    first_s: FloatArray
    done_s: FloatArray
    batch_mean: FloatArray
    kv_used_frac: FloatArray


def _run_prefill(
    spec: TrialSpec, calibration: Calibration, accepted: _Accepted
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
    transfer_s = _transfer_s(spec, calibration, spec.prefill, accepted.prompt)
    prompts = PrefillRequests(accepted.arrival_s, accepted.prompt, transfer_s)
    result = PrefillResult(worker, np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(len(slowdown)))
    prefill(limits, slowdown, prompts, result)
    by_completion = np.argsort(result.done_s, kind="stable")
    if entry == "prefill":
        decode_worker = route_by_worker(spec, "decode", by_completion, result.worker)
    elif entry is None:
        decode_worker = route_by_frontend(spec, "decode", by_completion)
    return result, decode_worker


def _run_decode(
    spec: TrialSpec, calibration: Calibration, accepted: _Accepted, prefilled: PrefillResult, worker: IntArray
) -> _Decoded:
    """Simulate the decode pool; `worker` (n,) is UNASSIGNED for a least-loaded router."""
    count, slowdown = len(worker), worker_slowdowns(spec, calibration, "decode")
    limits, batch_s = decode_worker(spec, calibration, accepted.window_s)
    requests = DecodeRequests(
        order=np.argsort(prefilled.sent_s, kind="stable"),
        begun_s=prefilled.sent_s - _transfer_s(spec, calibration, spec.prefill, accepted.prompt),
        sent_s=prefilled.sent_s,
        transfer_s=_transfer_s(spec, calibration, spec.decode, accepted.prompt),
        prompt=accepted.prompt,
        answer=accepted.answer,
        reserved=accepted.reserved,
    )
    result = DecodeResult(
        worker=worker,
        ready_s=np.zeros(count),
        start_s=np.zeros(count),
        first_s=np.zeros(count),
        done_s=np.zeros(count),
        usage=np.zeros((len(slowdown), 2)),
        peak_tokens=np.zeros(len(slowdown), np.int64),
    )
    decode(limits, slowdown, batch_s, requests, result)
    messages = -(-accepted.answer // spec.decode.tokens_per_message)
    first_delay_s, last_delay_s = frontends_delay_s(
        result.first_s, result.done_s, messages, calibration.frontend_message_s, spec.split.frontends
    )
    return _Decoded(
        result,
        result.first_s + first_delay_s,
        result.done_s + last_delay_s,
        _mean(result.usage[:, 0], accepted.window_s),
        _mean(result.usage[:, 1], accepted.window_s) / max(limits.kv_tokens, 1),
    )


def _stages(
    accepted: _Accepted, prefilled: PrefillResult, decoded: _Decoded, is_accepted: BoolArray
) -> Stages:
    """Return when each request passed each stage, ns, shape (n,); -1 for rejected requests."""
    return Stages(
        prefill_start_ns=_all_ns(prefilled.start_s, is_accepted),
        prefill_done_ns=_all_ns(prefilled.done_s, is_accepted),
        kv_arrived_ns=_all_ns(decoded.result.ready_s, is_accepted),
        decode_start_ns=_all_ns(decoded.result.start_s, is_accepted),
        prefill_queued_ns=_all_ns(accepted.arrival_s, is_accepted),
        first_made_ns=_all_ns(decoded.result.first_s, is_accepted),
    )


def _transfer_s(spec: TrialSpec, calibration: Calibration, engine: Engine, prompt: IntArray) -> FloatArray:
    """Return the seconds that each prompt's KV cache takes on the links of a worker's GPUs, shape (n,)."""
    kv_bytes = prompt * kv_bytes_per_token(spec.model, spec.prefill)
    return kv_bytes / (calibration.kv_transfer_bytes_per_s * engine.gpus)


def _mean(integral: FloatArray, window_s: float) -> FloatArray:
    """Return the mean over the window; zeros if a single query leaves no window."""
    return integral / window_s if window_s > 0 else np.zeros_like(integral)


def _all(values: IntArray, is_accepted: BoolArray) -> IntArray:
    """Return `values` of the accepted requests at their place among all; -1 for the others."""
    if len(values) == len(is_accepted):
        return values
    result = np.full(len(is_accepted), -1, np.int64)
    result[is_accepted] = values
    return result


def _all_ns(seconds: FloatArray, is_accepted: BoolArray) -> IntArray:
    """Return `seconds` of the accepted requests in ns at their place among all; -1 for the others."""
    return _all(np.rint(seconds * 1e9).astype(np.int64), is_accepted)
