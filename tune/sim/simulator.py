"""The simulated rack: arrivals flow through the prefill pool, the KV transfer and the decode pool.

Nothing flows back: a full decode pool does not slow the prefill pool, whose workers hand their KV cache on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.records.requests import PoolUse, RequestLog, Stages
from tune.sim.admission import answers, rejections, reserved_kv_tokens
from tune.sim.decode_loop import decode
from tune.sim.decode_pool import DecodeRequests, DecodeResult
from tune.sim.frontend import frontend_delay_s
from tune.sim.prefill_loop import PrefillRequests, PrefillResult, prefill
from tune.sim.routing import entry_pool, route_by_frontend, route_by_worker
from tune.sim.worker_models import decode_worker, prefill_worker, slowdowns
from tune.spec.cluster import Calibration
from tune.spec.engine import Engine
from tune.spec.memory import kv_bytes_per_token
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import draw_lengths


def simulate(spec: TrialSpec, calibration: Calibration, alone: Role | None = None) -> RequestLog:
    """Run the load of `spec` on the rack; the same arguments give the same bits.

    TTFT = front end + queue + prefill + KV transfer + wait for a decode slot + one decode step; each further
    token takes one step. A request that no engine would accept carries an error and takes no time. With
    `alone` the other pool is no limit: answers have one token, or neither prefill nor KV transfers take time.
    Raises ConfigurationError where a pool has no workers or the dataset is wrong.
    """
    scheduled_ns = arrivals_ns(spec.load)
    prompts, answers = draw_lengths(
        spec.load.dataset,
        len(scheduled_ns),
        spec.load.concatenate_permutation,
        spec.load.shuffle_seed,
        stratified=spec.load.is_short_run,
    )
    if alone == "prefill":
        answers = np.ones_like(answers)
        return serve(spec, calibration, scheduled_ns, (prompts, answers), most=answers)
    if alone == "decode":
        calibration = calibration.model_copy(update=_NO_TIME)
    return serve(spec, calibration, scheduled_ns, (prompts, answers))


_NO_TIME = {"prefill_scale": 1e-6, "kv_transfer_bytes_per_s": 1e18}


def serve(
    spec: TrialSpec,
    calibration: Calibration,
    scheduled_ns: IntArray,
    lengths: tuple[IntArray, IntArray],
    most: IntArray | None = None,
) -> RequestLog:
    """What `simulate` does, of known arrivals and known prompt and answer tokens, int64, shape (n,) each.

    `most` (n,): the longest answer that each request allows, which an engine sets KV blocks aside for; the
    dataset's longest where it is None, as the benchmark asks.
    """
    split = spec.split
    if not (split.prefill_workers and split.decode_workers):
        raise ConfigurationError(
            f"split: {split.label} leaves a pool empty; the simulated rack needs split.prefill_workers and "
            "split.decode_workers of at least 1."
        )
    prompt, answer = lengths
    answer = answers(spec, prompt, answer)
    if most is None:
        most = np.full_like(prompt, spec.load.dataset.longest_answer_tokens)
    error = rejections(spec, prompt, most)
    taken = error == ""
    accepted = _Accepted(
        arrival_s=scheduled_ns[taken] / 1e9 + calibration.ttft_overhead_s,
        prompt=prompt[taken],
        answer=answer[taken],
        reserved=reserved_kv_tokens(spec, prompt[taken], most[taken]),
        window_s=float(scheduled_ns[-1]) / 1e9,
    )
    prefilled, decode_worker = _run_prefill(spec, calibration, accepted)
    decoded = _run_decode(spec, calibration, accepted, prefilled, decode_worker)
    return RequestLog(
        scheduled_ns=scheduled_ns,
        first_token_ns=_all_ns(decoded.first_s, taken),
        done_ns=_all_ns(decoded.done_s, taken),
        input_tokens=prompt,
        output_tokens=np.where(taken, answer, 0),
        prefill_worker=_all(prefilled.worker, taken),
        decode_worker=_all(decoded.served.worker, taken),
        error=error,
        stages=Stages(
            prefill_start_ns=_all_ns(prefilled.start_s, taken),
            prefill_done_ns=_all_ns(prefilled.done_s, taken),
            kv_arrived_ns=_all_ns(decoded.served.ready_s, taken),
            decode_start_ns=_all_ns(decoded.served.start_s, taken),
            prefill_queued_ns=_all_ns(accepted.arrival_s, taken),
            first_made_ns=_all_ns(decoded.served.first_s, taken),
        ),
        pools=PoolUse(_mean(prefilled.busy_s, accepted.window_s), decoded.batch_mean, decoded.kv_used_frac),
    )


@dataclass(frozen=True, eq=False)
class _Accepted:
    """The requests that engines accept, shape (n,). `reserved`: KV tokens that a decode worker sets aside;
    `window_s`: from the first arrival to the last."""

    arrival_s: FloatArray
    prompt: IntArray
    answer: IntArray
    reserved: IntArray
    window_s: float


@dataclass(frozen=True, eq=False)
class _Decoded:
    """`served` and tokens as the client sees them, (n,); means over the window, one figure a worker."""

    served: DecodeResult
    first_s: FloatArray
    done_s: FloatArray
    batch_mean: FloatArray
    kv_used_frac: FloatArray


def _run_prefill(
    spec: TrialSpec, calibration: Calibration, accepted: _Accepted
) -> tuple[PrefillResult, IntArray]:
    """What the prefill pool did with every request, and who is to decode it, (n,)."""
    count, entry = len(accepted.prompt), entry_pool(spec)
    by_arrival = np.arange(count)
    if entry == "decode":
        decode_worker = route_by_frontend(spec, "decode", by_arrival)
        worker = route_by_worker(spec, "prefill", by_arrival, decode_worker)
    else:
        worker = route_by_frontend(spec, "prefill", by_arrival)
    limits = prefill_worker(spec, calibration, accepted.window_s)
    slowdown = slowdowns(spec, calibration, "prefill")
    transfer_s = _transfer_s(spec, calibration, spec.prefill, accepted.prompt)
    prompts = PrefillRequests(accepted.arrival_s, accepted.prompt, transfer_s)
    served = PrefillResult(worker, np.zeros(count), np.zeros(count), np.zeros(count), np.zeros(len(slowdown)))
    prefill(limits, slowdown, prompts, served)
    by_completion = np.argsort(served.done_s, kind="stable")
    if entry == "prefill":
        decode_worker = route_by_worker(spec, "decode", by_completion, served.worker)
    elif entry is None:
        decode_worker = route_by_frontend(spec, "decode", by_completion)
    return served, decode_worker


def _run_decode(
    spec: TrialSpec, calibration: Calibration, accepted: _Accepted, prefilled: PrefillResult, worker: IntArray
) -> _Decoded:
    count, slowdown = len(worker), slowdowns(spec, calibration, "decode")
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
    served = DecodeResult(
        worker=worker,
        ready_s=np.zeros(count),
        start_s=np.zeros(count),
        first_s=np.zeros(count),
        done_s=np.zeros(count),
        use=np.zeros((len(slowdown), 2)),
        peak_tokens=np.zeros(len(slowdown), np.int64),
    )
    decode(limits, slowdown, batch_s, requests, served)
    messages = -(-accepted.answer // spec.decode.tokens_per_message)
    first_delay_s, last_delay_s = frontend_delay_s(
        served.first_s, served.done_s, messages, calibration.frontend_message_s
    )
    return _Decoded(
        served,
        served.first_s + first_delay_s,
        served.done_s + last_delay_s,
        _mean(served.use[:, 0], accepted.window_s),
        _mean(served.use[:, 1], accepted.window_s) / max(limits.kv_tokens, 1),
    )


def _transfer_s(spec: TrialSpec, calibration: Calibration, engine: Engine, prompt: IntArray) -> FloatArray:
    """Seconds that the KV cache of each prompt takes on the links of a worker's GPUs, shape (n,)."""
    kv_bytes = prompt * kv_bytes_per_token(spec.model, spec.prefill)
    return kv_bytes / (calibration.kv_transfer_bytes_per_s * engine.gpus)


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
