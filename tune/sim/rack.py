"""The simulated rack: arrivals flow through the prefill pool, the KV transfer and the decode pool.

Nothing flows back: a full decode pool does not slow the prefill pool, whose workers hand their KV cache on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tune.errors import FixCommand
from tune.probe.arrivals import arrivals_ns
from tune.probe.lengths import draw_lengths
from tune.results.requests import FloatArray, IntArray, PoolUse, RequestLog, Stages
from tune.sim.admission import answers, refusals, reserved
from tune.sim.decode_loop import Requests, Served, decode
from tune.sim.prefill_loop import Prompts, prefill
from tune.sim.workers import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.memory import kv_bytes_per_token, kv_capacity_tokens
from tune.spec.trial import TrialSpec

BoolArray = NDArray[np.bool_]


def simulate(spec: TrialSpec, calibration: Calibration) -> RequestLog:
    """Run the load of `spec` on the rack; the same arguments give the same bits.

    TTFT = front end + queue + prefill + KV transfer + wait for a decode slot + one decode step; each further
    token takes one step. `stream_interval` changes neither the first nor the last token, so nothing here.
    A request that no engine would accept carries an error and takes no time. Raises FixCommand where a pool
    has no workers or the dataset is wrong.
    """
    scheduled_ns = arrivals_ns(spec.load)
    lengths = draw_lengths(
        spec.load.dataset, len(scheduled_ns), spec.load.concatenate_permutation, spec.load.length_seed
    )
    return serve(spec, calibration, scheduled_ns, lengths)


def serve(
    spec: TrialSpec, calibration: Calibration, scheduled_ns: IntArray, lengths: tuple[IntArray, IntArray]
) -> RequestLog:
    """What `simulate` does, of known arrivals and known prompt and answer tokens, int64, shape (n,) each."""
    split = spec.split
    if not (split.prefill_workers and split.decode_workers):
        raise FixCommand(
            f"split: {split.label} leaves a pool empty; the simulated rack needs split.prefill_workers and "
            "split.decode_workers of at least 1."
        )
    prompt, answer = lengths
    answer = answers(spec, prompt, answer)
    error = refusals(spec, prompt)
    taken = error == ""
    window_s = float(scheduled_ns[-1]) / 1e9
    accepted = prompt[taken], answer[taken]
    arrival_s = scheduled_ns[taken] / 1e9 + calibration.ttft_overhead_s
    prefilled = _run_prefill(spec, calibration, arrival_s, accepted[0], window_s)
    decoded = _run_decode(spec, calibration, prefilled, accepted, window_s)
    return RequestLog(
        scheduled_ns=scheduled_ns,
        first_token_ns=_all_ns(decoded.first_s, taken),
        done_ns=_all_ns(decoded.done_s, taken),
        input_tokens=prompt,
        output_tokens=np.where(taken, answer, 0),
        prefill_worker=_all(prefilled.worker, taken),
        decode_worker=_all(decoded.worker, taken),
        error=error,
        stages=Stages(
            prefill_start_ns=_all_ns(prefilled.start_s, taken),
            prefill_done_ns=_all_ns(prefilled.done_s, taken),
            kv_arrived_ns=_all_ns(prefilled.kv_arrived_s, taken),
            decode_start_ns=_all_ns(decoded.start_s, taken),
        ),
        pools=PoolUse(prefilled.busy_frac, decoded.batch_mean, decoded.kv_used_frac),
    )


@dataclass(frozen=True, eq=False)
class _Prefilled:
    """Times and worker of every accepted request, shape (n,); `busy_frac` one figure a worker."""

    start_s: FloatArray
    done_s: FloatArray
    kv_arrived_s: FloatArray
    worker: IntArray
    busy_frac: FloatArray


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Times and worker of every accepted request, shape (n,); means over the window one figure a worker."""

    start_s: FloatArray
    first_s: FloatArray
    done_s: FloatArray
    worker: IntArray
    batch_mean: FloatArray
    kv_used_frac: FloatArray


def _run_prefill(
    spec: TrialSpec, calibration: Calibration, arrival_s: FloatArray, prompt: IntArray, window_s: float
) -> _Prefilled:
    count, workers = len(prompt), spec.split.prefill_workers
    limits = prefill_worker(spec, calibration, window_s)
    kv_bytes = prompt * kv_bytes_per_token(spec.model, spec.prefill)
    transfer_s = calibration.kv_transfer_latency_s + kv_bytes / calibration.kv_transfer_bytes_per_s
    start_s, done_s, busy_s = np.zeros(count), np.zeros(count), np.zeros(workers)
    worker = _route(spec, "prefill", np.arange(count))
    for index in range(workers):
        mine = np.flatnonzero(worker == index)
        start, done = np.zeros(len(mine)), np.zeros(len(mine))
        busy_s[index] = prefill(limits, Prompts(arrival_s[mine], prompt[mine], transfer_s[mine]), start, done)
        start_s[mine], done_s[mine] = start, done
    return _Prefilled(start_s, done_s, done_s + transfer_s, worker, _mean(busy_s, window_s))


def _run_decode(
    spec: TrialSpec,
    calibration: Calibration,
    prefilled: _Prefilled,
    lengths: tuple[IntArray, IntArray],
    window_s: float,
) -> _Decoded:
    prompt, answer = lengths
    count, workers = len(prompt), spec.split.decode_workers
    start_s, first_s, done_s = np.zeros(count), np.zeros(count), np.zeros(count)
    promised = reserved(spec, prompt)
    by_prefill = np.argsort(prefilled.done_s, kind="stable")
    prefill_first = spec.split.disaggregation_strategy == "prefill_first"
    worker = _route(spec, "decode", by_prefill if prefill_first else np.arange(count))
    use = np.zeros((workers, 2))
    by_arrival = np.argsort(prefilled.kv_arrived_s, kind="stable")
    for index in range(workers):
        scale = calibration.last_decode_worker_scale if index == workers - 1 else 1.0
        limits, batch_s = decode_worker(spec, calibration, scale, window_s)
        mine = by_arrival[worker[by_arrival] == index]
        served = Served(np.zeros(len(mine)), np.zeros(len(mine)), np.zeros(len(mine)), use[index])
        requests = Requests(prefilled.kv_arrived_s[mine], prompt[mine], answer[mine], promised[mine])
        decode(limits, batch_s, requests, served)
        start_s[mine], first_s[mine], done_s[mine] = served.start_s, served.first_s, served.done_s
    kv_tokens = max(kv_capacity_tokens(spec.model, spec.hardware, spec.decode), 1)
    batch_mean, kv_mean = _mean(use[:, 0], window_s), _mean(use[:, 1], window_s)
    return _Decoded(start_s, first_s, done_s, worker, batch_mean, kv_mean / kv_tokens)


def _route(spec: TrialSpec, pool: Literal["prefill", "decode"], order: IntArray) -> IntArray:
    """Worker of each request, shape (n,), dealt out round-robin or at random to requests in `order`.

    prefill_first deals decode workers out as prefills end; decode_first, where the decode worker is the
    endpoint, as requests arrive. The way there and back is as long in both. Source: Dynamo's TensorRT-LLM
    request handlers.
    """
    workers = spec.split.prefill_workers if pool == "prefill" else spec.split.decode_workers
    dealt = np.arange(len(order)) % workers
    if spec.stack.router_mode == "random":
        words = [spec.load.length_seed, workers, pool == "decode"]
        draws = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(words)))
        dealt = draws.randint(workers, size=len(order))
    worker = np.empty(len(order), np.int64)
    worker[order] = dealt
    return worker


def _mean(integral: FloatArray, window_s: float) -> FloatArray:
    """Mean over the window between the first arrival and the last; zeros where one query leaves none."""
    return integral / window_s if window_s > 0 else np.zeros_like(integral)


def _all(values: IntArray, taken: BoolArray) -> IntArray:
    """`values` of the accepted requests among all, -1 for the others."""
    spread = np.full(len(taken), -1, np.int64)
    spread[taken] = values
    return spread


def _all_ns(seconds: FloatArray, taken: BoolArray) -> IntArray:
    return _all(np.rint(seconds * 1e9).astype(np.int64), taken)
