"""The highest rate that decode workers sustain, in closed form, over many racks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.core.jit import compiled
from tune.sim.worker_models import decode_worker
from tune.spec.cluster import Calibration
from tune.spec.memory import reserved_tokens
from tune.spec.trial import TrialSpec
from tune.surrogate.prefill_latency import Workload

BATCH_FLUCTUATION_SDS = 1.0
"""By so many square roots of its mean a batch swings above it, where slots or cache end. Our choice: Poisson
arrivals, and what agrees best with the simulated rack."""

_GRID = 48


class DecodeEngines(NamedTuple):
    """Decode workers of different settings: seconds of a step of each `batch` (engines, k), and the parts of
    it that racks vary; all else is (engines,).

    `step_s` holds what the context of sequences of mean length adds. `slots` bound the batch, and so does
    the KV cache, which holds `cached` sequences.
    """

    batch: IntArray
    step_s: FloatArray
    all_reduce_s: FloatArray
    read_s: FloatArray
    slots: FloatArray
    cached: FloatArray
    answer_tokens: FloatArray
    tpot_s: FloatArray


def decode_engines(specs: Sequence[TrialSpec], calibration: Calibration, asked: Workload) -> DecodeEngines:
    return DecodeEngines(
        *map(np.array, zip(*(_engine(spec, calibration, asked) for spec in specs), strict=True))
    )


def _engine(
    spec: TrialSpec, calibration: Calibration, asked: Workload
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, float, float, float, float]:
    """The fields of Engines for one; after its largest batch it is repeated, which nothing comes to."""
    answer = asked.answer.astype(float)
    context = float(asked.prompt.mean() + (answer * answer).mean() / (2 * answer.mean()))
    without, once = (calibration.model_copy(update={"large_batch_weight_reads": n}) for n in (0.0, 1.0))
    worker, batch_s = decode_worker(spec, without, np.inf)
    _, once_s = decode_worker(spec, once, np.inf)
    slower = {"nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s / 2}
    slowed = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=slower)})
    _, slowed_s = decode_worker(slowed, without, np.inf)
    few = np.unique(np.geomspace(1, worker.slots, _GRID).round().astype(np.int64))
    batch = np.pad(few, (0, _GRID - len(few)), mode="edge")
    held = context
    if spec.decode.batching == "reserve_answers":
        longest = spec.load.dataset.longest_answer_tokens
        held = float(np.mean(reserved_tokens(asked.prompt, longest, spec.decode)))
    return (
        batch,
        batch_s[batch] + worker.context_token_s * context * batch,
        slowed_s[batch] - batch_s[batch],
        once_s[batch] - batch_s[batch],
        float(worker.slots),
        worker.kv_tokens / held,
        float(answer.mean()),
        np.inf if spec.slo.tpot_p99_s is None else spec.slo.tpot_p99_s,
    )


class DecodeParameters(NamedTuple):
    """Factors by which all-reduces and cache differ on each rack (racks,), and by which steps and what they
    read do for each worker asked about (racks, m)."""

    all_reduce: FloatArray
    kv_capacity: FloatArray
    scale: FloatArray
    reads: FloatArray


@compiled
def decode_capacity_qps(engines: DecodeEngines, which: IntArray, racks: DecodeParameters) -> FloatArray:
    """Queries/s of one worker of each of the engines `which` (m,): (racks, m).

    A batch of b sequences that takes t(b) seconds a step ends b / (answer x t(b)) answers a second (Little's
    law). b may grow to the largest batch whose step keeps the TPOT limit, and that slots and cache hold when
    it swings by SWING of its square root; where steps leap, a smaller one may end more.
    """
    found = np.zeros(racks.scale.shape)
    for rack in range(len(found)):
        for at in range(len(which)):
            engine = which[at]
            held = min(engines.slots[engine], racks.kv_capacity[rack] * engines.cached[engine])
            largest = ((np.sqrt(BATCH_FLUCTUATION_SDS**2 + 4 * held) - BATCH_FLUCTUATION_SDS) / 2) ** 2
            tpot_s, below, below_s, tokens_per_s = engines.tpot_s[engine], 0.0, 0.0, 0.0
            for point in range(_GRID):
                slower_s = (racks.all_reduce[rack] - 1) * engines.all_reduce_s[engine, point]
                step_s = racks.scale[rack, at] * (engines.step_s[engine, point] + slower_s)
                step_s += racks.reads[rack, at] * engines.read_s[engine, point]
                batch = float(engines.batch[engine, point])
                fits = min(batch, largest)
                if step_s > tpot_s:
                    if point == 0:
                        break
                    fits = min(fits, below + (tpot_s - below_s) / (step_s - below_s) * (batch - below))
                taken_s = step_s
                if point > 0 and fits < batch:
                    taken_s = below_s + (step_s - below_s) * (fits - below) / (batch - below)
                tokens_per_s = max(tokens_per_s, fits / taken_s)
                if fits < batch:
                    break
                below, below_s = batch, step_s
            found[rack, at] = tokens_per_s / engines.answer_tokens[engine]
    return found
