"""Compute the capacity of decode workers in closed form, for many parameter samples at once."""

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
"""A batch of mean b is assumed to reach b plus this many times sqrt(b), where slots or KV cache end. The
arrivals are Poisson; the factor is chosen here because it agrees best with the simulator."""

_BATCH_POINTS = 48
"""Number of batch sizes, even in their logarithm, at which the step time of an engine is tabulated."""


class DecodeEngines(NamedTuple):
    """Hold tabulated decode workers of different settings.

    Step times have the shape (engines, k), one column a batch size in `batch`. They are split into the parts
    that the parameters of a sample scale: `step_s` includes the context of sequences of mean length,
    `all_reduce_s` is what halving the NVLink rate adds, `read_s` what one further read of the weights adds.
    All other fields have the shape (engines,): `slots` and `cached_sequences` (sequences of mean length in
    the KV cache) limit the batch.
    """

    batch: IntArray
    step_s: FloatArray
    all_reduce_s: FloatArray
    read_s: FloatArray
    slots: FloatArray
    cached_sequences: FloatArray
    answer_tokens: FloatArray


def decode_engines(specs: Sequence[TrialSpec], calibration: Calibration, workload: Workload) -> DecodeEngines:
    """Tabulate the decode worker of each of `specs` for the prompt and answer lengths of `workload`."""
    return DecodeEngines(
        *map(np.array, zip(*(_engine_fields(spec, calibration, workload) for spec in specs), strict=True))
    )


def joined(tables: Sequence[DecodeEngines]) -> DecodeEngines:
    """Return the engines of all `tables` as one table."""
    return DecodeEngines(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))


def _engine_fields(
    spec: TrialSpec, calibration: Calibration, workload: Workload
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, float, float, float]:
    """Return the fields of DecodeEngines for one worker; its largest batch is repeated to fill the table."""
    answer = workload.answer.astype(float)
    context = float(workload.prompt.mean() + (answer * answer).mean() / (2 * answer.mean()))
    no_read, one_read = (calibration.model_copy(update={"large_batch_weight_reads": n}) for n in (0.0, 1.0))
    worker, steps = decode_worker(spec, no_read, np.inf)
    _, one_read_steps = decode_worker(spec, one_read, np.inf)
    half_rate = {"nvlink_bytes_per_s": spec.hardware.nvlink_bytes_per_s / 2}
    slow_spec = spec.model_copy(update={"hardware": spec.hardware.model_copy(update=half_rate)})
    _, slow_steps = decode_worker(slow_spec, no_read, np.inf)
    batch_s, slow_s, one_read_s = (each.batch_s[:, 0] for each in (steps, slow_steps, one_read_steps))
    sizes = np.unique(np.geomspace(1, worker.slots, _BATCH_POINTS).round().astype(np.int64))
    batch = np.pad(sizes, (0, _BATCH_POINTS - len(sizes)), mode="edge")
    sequence_tokens = context
    if spec.decode.batching == "reserve_answers":
        longest = spec.load.dataset.longest_answer_tokens
        sequence_tokens = float(np.mean(reserved_tokens(workload.prompt, longest, spec.decode)))
    return (
        batch,
        batch_s[batch] + steps.token_s[batch, 0] * context * batch,
        slow_s[batch] - batch_s[batch],
        one_read_s[batch] - batch_s[batch],
        float(worker.slots),
        worker.kv_tokens / sequence_tokens,
        float(answer.mean()),
    )


class DecodeParameters(NamedTuple):
    """Hold the effects of the parameter samples on decode workers.

    `all_reduce_factor` and `kv_capacity_factor` have the shape (samples,), `step_scale` and `weight_reads`
    (samples, m) for m workers. `step_limit_s` is the longest time that a step may take.
    """

    all_reduce_factor: FloatArray
    kv_capacity_factor: FloatArray
    step_scale: FloatArray
    weight_reads: FloatArray
    step_limit_s: float


@compiled
def decode_capacity_qps(
    engines: DecodeEngines, indices: IntArray, parameters: DecodeParameters
) -> FloatArray:
    """Return the capacity of one worker of each of the engines `indices` (m,), queries/s, (samples, m).

    A batch of b sequences that takes t(b) seconds a step completes b / (answer tokens x t(b)) answers a
    second (Little's law). The batch is limited by the time that a step may take, and by slots and KV cache
    when it fluctuates by BATCH_FLUCTUATION_SDS square roots of its mean. The maximum over all smaller batches
    is taken, because a step time that jumps can make a smaller batch faster.
    """
    capacity_qps = np.zeros(parameters.step_scale.shape)
    for sample in range(len(capacity_qps)):
        for column in range(len(indices)):
            engine = indices[column]
            limit = min(
                engines.slots[engine],
                parameters.kv_capacity_factor[sample] * engines.cached_sequences[engine],
            )
            largest = ((np.sqrt(BATCH_FLUCTUATION_SDS**2 + 4 * limit) - BATCH_FLUCTUATION_SDS) / 2) ** 2
            below, below_s, tokens_per_s = 0.0, 0.0, 0.0
            for point in range(_BATCH_POINTS):
                added_s = (parameters.all_reduce_factor[sample] - 1) * engines.all_reduce_s[engine, point]
                step_s = parameters.step_scale[sample, column] * (engines.step_s[engine, point] + added_s)
                step_s += parameters.weight_reads[sample, column] * engines.read_s[engine, point]
                batch = float(engines.batch[engine, point])
                fitting = min(batch, largest)
                if step_s > parameters.step_limit_s:
                    if point == 0:
                        break
                    frac = (parameters.step_limit_s - below_s) / (step_s - below_s)
                    fitting = min(fitting, below + frac * (batch - below))
                fitting_s = step_s
                if point > 0 and fitting < batch:
                    fitting_s = below_s + (step_s - below_s) * (fitting - below) / (batch - below)
                tokens_per_s = max(tokens_per_s, fitting / fitting_s)
                if fitting < batch:
                    break
                below, below_s = batch, step_s
            capacity_qps[sample, column] = tokens_per_s / engines.answer_tokens[engine]
    return capacity_qps
