"""Simulate a deployment: arrivals pass the prefill pool, the KV transfer and the decode pool, or one pool.

In an open loop there is no feedback between two pools. In aggregated workers prompts and answers share every
step. In a closed loop users send when they have an answer, so the pools are simulated at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.records.requests import RequestLog, Stages
from tune.sim.admission import answered_tokens, rejections, reserved_kv_tokens
from tune.sim.aggregated import serve_by_one_pool
from tune.sim.closed_serving import serve_users
from tune.sim.disaggregated import serve_by_two_pools
from tune.sim.kernel_steps import with_kernel_steps
from tune.sim.served import Accepted, Served, answer_delays_s
from tune.spec.cluster import Calibration
from tune.spec.split import Role, Split
from tune.spec.trial import TrialSpec
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import request_lengths


def simulate_serving(
    spec: TrialSpec, calibration: Calibration, single_pool: Role | None = None
) -> RequestLog:
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
        further token takes one step. In aggregated workers the first token comes with the end of prefill. A
        request that no engine accepts carries an error and takes no time.

    Raises
    ------
    ConfigurationError
        If a pool has no workers, the dataset is wrong, or the calibration's source of step times has none.
    """
    if spec.load.is_closed_loop:
        return _simulate_users(spec, calibration)
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
        As `simulate_serving` returns it.

    Raises
    ------
    ConfigurationError
        If a pool has no workers.
    """
    _require_workers(spec.split)
    calibration = with_kernel_steps(spec, calibration)
    demand = _demand(spec, lengths, max_answer)
    arrival_s = scheduled_ns[demand.is_accepted] / 1e9 + calibration.ttft_overhead_s
    accepted = demand.accepted(arrival_s, float(scheduled_ns[-1]) / 1e9)
    served = _serve(spec, calibration, accepted)
    first_delay_s, last_delay_s = answer_delays_s(spec, calibration, accepted, served)
    tokens_s = served.first_s + first_delay_s, served.done_s + last_delay_s
    return _request_log(demand, scheduled_ns, accepted, served, tokens_s)


def _simulate_users(spec: TrialSpec, calibration: Calibration) -> RequestLog:
    """Simulate a closed loop. A user whose request is rejected sends the next one at once."""
    _require_workers(spec.split)
    calibration = with_kernel_steps(spec, calibration)
    lengths = request_lengths(spec.load, spec.load.expected_queries)
    demand = _demand(spec, lengths, None)
    accepted, served, tokens_s = serve_users(spec, calibration, demand.accepted(np.zeros(0), math.inf))
    sent_s = accepted.arrival_s - calibration.ttft_overhead_s
    later: IntArray = np.cumsum(demand.is_accepted) - demand.is_accepted  # rejected ones go with the next
    scheduled_ns = np.rint(sent_s[np.minimum(later, len(sent_s) - 1)] * 1e9).astype(np.int64)
    return _request_log(demand, scheduled_ns, accepted, served, tokens_s)


@dataclass(frozen=True, eq=False)
class _Demand:
    """Hold the tokens of the requests, (n,), those that are reserved, and why an engine rejects each."""

    prompt: IntArray
    answer: IntArray
    reserved: IntArray
    error: NDArray[np.str_]

    @property
    def is_accepted(self) -> BoolArray:
        """Return which requests are accepted, (n,)."""
        is_accepted: BoolArray = self.error == ""
        return is_accepted

    def accepted(self, arrival_s: FloatArray, window_s: float) -> Accepted:
        """Return the accepted requests with their arrivals."""
        kept = self.is_accepted
        return Accepted(arrival_s, self.prompt[kept], self.answer[kept], self.reserved[kept], window_s)


def _demand(spec: TrialSpec, lengths: tuple[IntArray, IntArray], max_answer: IntArray | None) -> _Demand:
    """Return what requests of `lengths` ask for; a longest answer of None is the dataset's."""
    prompt, answer = lengths[0], answered_tokens(spec, *lengths)
    if max_answer is None:
        max_answer = np.full_like(prompt, spec.load.dataset.longest_answer_tokens)
    reserved = reserved_kv_tokens(spec, prompt, max_answer)
    return _Demand(prompt, answer, reserved, rejections(spec, prompt, max_answer))


def _request_log(
    demand: _Demand,
    scheduled_ns: IntArray,
    accepted: Accepted,
    served: Served,
    tokens_s: tuple[FloatArray, FloatArray],
) -> RequestLog:
    """Return the record of all requests; `tokens_s` are first and last token of the accepted ones."""
    is_accepted = demand.is_accepted
    return RequestLog(
        scheduled_ns=scheduled_ns,
        first_token_ns=_all_ns(tokens_s[0], is_accepted),
        done_ns=_all_ns(tokens_s[1], is_accepted),
        input_tokens=demand.prompt,
        output_tokens=np.where(is_accepted, demand.answer, 0),
        prefill_worker=_all(served.prefill_worker, is_accepted),
        decode_worker=_all(served.decode_worker, is_accepted),
        error=demand.error,
        stages=_stages(accepted, served, is_accepted),
        pools=served.pools,
    )


def _serve(spec: TrialSpec, calibration: Calibration, accepted: Accepted) -> Served:
    """Simulate the pools of the deployment."""
    if spec.split.aggregated_workers:
        return serve_by_one_pool(spec, calibration, accepted)
    return serve_by_two_pools(spec, calibration, accepted)


def _require_workers(split: Split) -> None:
    """Raise ConfigurationError if a pool has no workers."""
    if not all(split.workers(role) for role in split.roles):
        raise ConfigurationError(
            f"split: {split.label} leaves a pool empty; the simulator needs split.prefill_workers and "
            "split.decode_workers of at least 1."
        )


def _stages(accepted: Accepted, served: Served, is_accepted: BoolArray) -> Stages:
    """Return when each request passed each stage, ns, shape (n,); -1 for rejected requests."""
    return Stages(
        prefill_start_ns=_all_ns(served.prefill_start_s, is_accepted),
        prefill_done_ns=_all_ns(served.prefill_done_s, is_accepted),
        kv_arrived_ns=_all_ns(served.kv_arrived_s, is_accepted),
        decode_start_ns=_all_ns(served.decode_start_s, is_accepted),
        prefill_queued_ns=_all_ns(accepted.arrival_s, is_accepted),
        first_made_ns=_all_ns(served.first_s, is_accepted),
    )


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
