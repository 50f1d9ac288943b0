"""The arrival rate at which the simulated rack saturates, from the mean work of a request in each pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tune.probe.lengths import draw_lengths
from tune.results.requests import FloatArray, IntArray
from tune.sim.admission import answers, refusals, reserved
from tune.sim.decode_loop import MAX_UTILIZATION, STATIC_BATCH, DecodeWorker
from tune.sim.workers import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.engine import KV_BLOCK_TOKENS
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class Saturation:
    """Requests/s at which each pool is busy all the time; 0 where it can serve nothing."""

    prefill_qps: float
    decode_qps: float

    @property
    def qps(self) -> float:
        return min(self.prefill_qps, self.decode_qps)

    @property
    def pool(self) -> Literal["prefill", "decode"]:
        """The pool that saturates first."""
        return "prefill" if self.prefill_qps <= self.decode_qps else "decode"


def saturation_qps(spec: TrialSpec, calibration: Calibration) -> Saturation:
    """Estimate where each pool of `spec` saturates, without serving anything; arrivals are dealt out evenly.

    Raises FixCommand where the dataset is wrong.
    """
    dataset, split = spec.load.dataset, spec.split
    prompt, answer = draw_lengths(dataset, dataset.samples, True, spec.load.length_seed)
    taken = refusals(spec, prompt) == ""
    if not taken.any():
        return Saturation(0.0, 0.0)
    prompt = prompt[taken]
    answer = answers(spec, prompt, answer[taken])
    slowest = (
        max(calibration.last_decode_worker_scale, 1.0)
        if split.decode_workers > 1
        else (calibration.last_decode_worker_scale)
    )
    worker, batch_s = decode_worker(spec, calibration, slowest, 0.0)
    return Saturation(
        split.prefill_workers / _prefill_s(spec, calibration, prompt),
        split.decode_workers * _decode_qps(worker, batch_s, prompt, answer, reserved(spec, prompt)),
    )


def _prefill_s(spec: TrialSpec, calibration: Calibration, prompt: IntArray) -> float:
    """Mean seconds of a worker's time that a prompt takes when every step is full.

    A prompt attends n^2 / 2 pairs whatever its chunks. Steps are shared by the tokens in them.
    """
    worker = prefill_worker(spec, calibration, 0.0)
    if worker.chunked:
        share = prompt / worker.max_num_tokens
        steps = float(np.maximum(share, np.ceil(share) / worker.max_batch_size).sum())
    else:
        steps = _packed_steps(prompt, worker.max_num_tokens, worker.max_batch_size)
    pairs = prompt * (prompt / 2)
    work_s = worker.step_s * steps + worker.token_s * prompt.sum() + worker.pair_s * pairs.sum()
    return float(work_s / len(prompt))


def _packed_steps(prompt: IntArray, max_num_tokens: int, max_batch_size: int) -> int:
    """Steps that whole prompts take, packed in order."""
    steps, tokens, batch = 1, 0, 0
    for length in prompt.tolist():
        if tokens + length > max_num_tokens or batch == max_batch_size:
            steps, tokens, batch = steps + 1, 0, 0
        tokens, batch = tokens + length, batch + 1
    return steps


def _decode_qps(
    worker: DecodeWorker, batch_s: FloatArray, prompt: IntArray, answer: IntArray, promised: IntArray
) -> float:
    """Requests/s of one worker at the best batch its cache holds on average; recomputes are left out."""
    context = float(np.average(prompt + answer / 2, weights=answer))
    each = float(np.average(promised, weights=answer))
    if worker.policy == MAX_UTILIZATION:
        each = context + KV_BLOCK_TOKENS - 1
    largest = min(worker.slots, int(worker.kv_tokens / each))
    batch = np.arange(1, max(largest, 1) + 1)
    if worker.policy == STATIC_BATCH:
        return _static_qps(worker, batch_s, int(batch[-1]), prompt, answer)
    step_s = batch_s[batch] + worker.context_token_s * context * batch
    return float((batch / step_s).max() / answer.mean())


def _static_qps(
    worker: DecodeWorker, batch_s: FloatArray, batch: int, prompt: IntArray, answer: IntArray
) -> float:
    """Requests/s when a batch must end before the next begins: its size shrinks as answers end.

    Step k happens when any of the batch answers more than k tokens, for as many as then do on average.
    """
    step = np.arange(answer.max())
    longer_frac = 1 - np.searchsorted(np.sort(answer), step, side="right") / len(answer)
    going_frac = 1 - (1 - longer_frac) ** batch
    alive = batch * longer_frac / going_frac
    step_s = batch_s[np.rint(alive).astype(np.int64)]
    step_s = step_s + worker.context_token_s * alive * (prompt.mean() + step)
    return float(batch / (going_frac * step_s).sum())
