"""The highest rate that a decode worker sustains, in closed form, over many racks at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tune.belief.prefill_curve import Asked
from tune.results.requests import FloatArray, IntArray
from tune.sim.compiled import compiled
from tune.sim.workers import decode_worker
from tune.spec.cluster import Calibration
from tune.spec.memory import reserved_tokens
from tune.spec.trial import TrialSpec

SWING = 1.0
"""By so many square roots of its mean a batch swings above it, where slots or cache end. Our choice: Poisson
arrivals, and what agrees best with the simulated rack."""

_GRID = 48


@dataclass(frozen=True, eq=False)
class DecodeEngine:
    """A decode worker: seconds of a step of each batch (k,), and the parts of it that racks vary.

    `step_s` holds what the context of sequences of mean length adds. `slots` bound the batch, and so does
    the KV cache, which holds `cached` sequences.
    """

    batch: IntArray
    step_s: FloatArray
    all_reduce_s: FloatArray
    read_s: FloatArray
    slots: float
    cached: float
    answer_tokens: float
    tpot_s: float

    @classmethod
    def of(cls, spec: TrialSpec, calibration: Calibration, asked: Asked) -> DecodeEngine:
        answer = asked.answer.astype(float)
        context = float(asked.prompt.mean() + (answer * answer).mean() / (2 * answer.mean()))
        without, once = (calibration.model_copy(update={"large_batch_weight_reads": n}) for n in (0.0, 1.0))
        worker, batch_s = decode_worker(spec, without, np.inf)
        _, once_s = decode_worker(spec, once, np.inf)
        slower = {"nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s / 2}
        slowed = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=slower)})
        _, slowed_s = decode_worker(slowed, without, np.inf)
        batch = np.unique(np.geomspace(1, worker.slots, _GRID).round().astype(np.int64))
        held = context
        if spec.decode.capacity_policy == "GUARANTEED_NO_EVICT":
            longest = spec.load.dataset.longest_answer_tokens
            held = float(np.mean(reserved_tokens(asked.prompt, longest, spec.decode.max_seq_len)))
        return cls(
            batch=batch,
            step_s=batch_s[batch] + worker.context_token_s * context * batch,
            all_reduce_s=slowed_s[batch] - batch_s[batch],
            read_s=once_s[batch] - batch_s[batch],
            slots=float(worker.slots),
            cached=worker.kv_tokens / held,
            answer_tokens=float(answer.mean()),
            tpot_s=np.inf if spec.slo.tpot_p99_s is None else spec.slo.tpot_p99_s,
        )

    def highest_qps(
        self, scale: FloatArray, all_reduce: FloatArray, reads: FloatArray, kv_capacity: FloatArray
    ) -> FloatArray:
        """Queries/s of one worker, (n,), where steps, all-reduces and cache differ by these factors (n,).

        A batch of b sequences that takes t(b) seconds a step ends b / (answer x t(b)) answers a second
        (Little's law). b may grow to the largest batch whose step keeps the TPOT limit, and that slots and
        cache hold when it swings by SWING of its square root; where steps leap, a smaller one may end more.
        """
        held = np.minimum(self.slots, kv_capacity * self.cached)
        largest = ((np.sqrt(SWING**2 + 4 * held) - SWING) / 2) ** 2
        steps = _Steps(self.batch, self.step_s, self.all_reduce_s, self.read_s, self.tpot_s)
        return _tokens_per_s(steps, _OnRacks(scale, all_reduce, reads, largest)) / self.answer_tokens


class _Steps(NamedTuple):
    """Of a DecodeEngine."""

    batch: IntArray
    step_s: FloatArray
    all_reduce_s: FloatArray
    read_s: FloatArray
    tpot_s: float


class _OnRacks(NamedTuple):
    """Factors by rack, and the `largest` batch that slots and cache hold, (n,)."""

    scale: FloatArray
    all_reduce: FloatArray
    reads: FloatArray
    largest: FloatArray


@compiled
def _tokens_per_s(steps: _Steps, racks: _OnRacks) -> FloatArray:
    """The most that a worker makes at a batch whose step keeps the limit, straight between batches, (n,)."""
    found = np.zeros(len(racks.scale))
    for rack in range(len(found)):
        below, below_s = 0.0, 0.0
        for at in range(len(steps.batch)):
            slower_s = (racks.all_reduce[rack] - 1) * steps.all_reduce_s[at]
            step_s = racks.scale[rack] * (steps.step_s[at] + slower_s) + racks.reads[rack] * steps.read_s[at]
            batch = float(steps.batch[at])
            fits = min(batch, racks.largest[rack])
            if step_s > steps.tpot_s:
                if at == 0:
                    break
                in_time = (steps.tpot_s - below_s) / (step_s - below_s)
                fits = min(fits, below + in_time * (batch - below))
            taken_s = step_s
            if at > 0 and fits < batch:
                taken_s = below_s + (step_s - below_s) * (fits - below) / (batch - below)
            found[rack] = max(found[rack], fits / taken_s)
            if fits < batch:
                break
            below, below_s = batch, step_s
    return found
