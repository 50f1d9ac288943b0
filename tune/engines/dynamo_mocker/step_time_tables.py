"""The tables that time a mock engine's steps: our step-time model in the form of Dynamo's profiler.

A mock engine knows a prefill step by its new tokens alone and a decode step by the sum and the mean of its
contexts, so two things are lost. The context behind a chunk: every new token pays for the mean context over
the dataset's prompts, which keeps the time of the whole dataset and makes long prompts quicker, short ones
slower. The edge between two CUDA graph sizes: it is smeared over 2 % of the batch to either side.
Source: Dynamo 1.6.1, lib/mocker/src/common/perf_model.rs: float64 arrays, milliseconds, linear and bilinear
between points and beyond them; a decode step takes at least 1 ms.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from tune.core.arrays import FloatArray
from tune.deploy.mock_processes import step_times_file
from tune.sim.worker_models import decode_worker, prefill_worker
from tune.spec.cluster import Calibration
from tune.spec.load import Load
from tune.spec.memory import kv_capacity_tokens
from tune.spec.trial import TrialSpec
from tune.workload.lengths import draw_lengths

_RATIO = 1.02
"""Between two points of an axis."""

_LEAST_CONTEXT_TOKENS = 16.0
_MS = 1e3


def step_times(spec: TrialSpec, calibration: Calibration) -> Mapping[str, bytes]:
    """The NPZ file of each pool, by its name in the plan. The same arguments give the same bytes."""
    context_tokens = mean_context_tokens(spec.load)
    prefill = prefill_worker(spec, calibration, window_s=0.0)
    token_s = prefill.token_s + prefill.pair_s * context_tokens
    decode, batch_s = decode_worker(spec, calibration, window_s=0.0)
    recompute_token_s = decode.recompute_token_s + decode.recompute_pair_s * context_tokens
    no_decode = np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.full((2, 2), prefill.step_s)
    return {
        step_times_file("prefill"): _npz(prefill.step_s, token_s, prefill.max_num_tokens, no_decode),
        step_times_file("decode"): _npz(
            decode.recompute_step_s,
            recompute_token_s,
            decode.max_num_tokens,
            decode_grid(spec, batch_s, decode.context_token_s),
        ),
    }


def mean_context_tokens(load: Load) -> float:
    """Tokens before a prompt's token, mean over all tokens of the dataset: sum of n^2 / 2 over sum of n."""
    prompts, _ = draw_lengths(load.dataset, load.dataset.samples, False, load.shuffle_seed)
    tokens = prompts.astype(np.float64)
    return float((tokens**2).sum() / (2 * tokens.sum()))


def decode_grid(
    spec: TrialSpec, batch_s: FloatArray, context_token_s: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sums of contexts (tokens, shape (k,)), mean contexts (tokens, (c,)), seconds of a step ((k, c)).

    `batch_s`: the context-free seconds of a step at batch 0.., as tune.sim.workers.decode_worker gives them.
    Their quotient is the batch; a point beyond the largest batch takes that one's time.
    """
    capacity = kv_capacity_tokens(spec.model, spec.hardware, spec.decode)
    sums = _axis(float(capacity))
    means = _axis(float(spec.decode.max_seq_len))
    batch = np.clip(np.rint(sums[:, None] / means[None, :]), 1, len(batch_s) - 1).astype(np.int64)
    return sums, means, batch_s[batch] + context_token_s * sums[:, None]


def _axis(most: float) -> FloatArray:
    points = int(np.ceil(np.log(most / _LEAST_CONTEXT_TOKENS) / np.log(_RATIO))) + 1
    return np.geomspace(_LEAST_CONTEXT_TOKENS, most, points)


def _npz(
    step_s: float, token_s: float, most_tokens: int, decode: tuple[FloatArray, FloatArray, FloatArray]
) -> bytes:
    new_tokens = np.array([0.0, float(most_tokens)])
    sums, means, seconds = decode
    file = io.BytesIO()
    np.savez(
        file,
        prefill_isl=new_tokens,
        prefill_ttft_ms=_MS * (step_s + token_s * new_tokens),
        decode_active_kv_tokens=sums,
        decode_context_length=means,
        decode_itl=_MS * seconds,
    )
    return file.getvalue()
