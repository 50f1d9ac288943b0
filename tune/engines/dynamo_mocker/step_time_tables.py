"""Write the tables that time a mock engine's steps, in the form of Dynamo's profiler.

A mock engine times a prefill step by its new tokens alone and a decode step by the sum and the mean of its
contexts, so two effects of the simulator's step times are lost. The first is the context behind a chunk:
every new token pays for the mean context over the dataset's prompts, which keeps the time of the whole
dataset and makes long prompts quicker, short ones slower. The second is the edge between two CUDA graph
sizes: it is smeared over 2 % of the batch to either side.
Source: Dynamo 1.6.1, lib/mocker/src/common/perf_model.rs: float64 arrays, milliseconds, linear and bilinear
between points and beyond them; a decode step takes at least 1 ms.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from tune.core.arrays import FloatArray
from tune.engines.base import StepTiming
from tune.engines.dynamo_mocker.mock_processes import step_times_file
from tune.spec.load import Load
from tune.spec.trial import TrialSpec
from tune.workload.lengths import draw_lengths

_RATIO = 1.02
"""Ratio of two neighbouring points of an axis."""

_LEAST_CONTEXT_TOKENS = 16.0
_MS = 1e3


def step_times(spec: TrialSpec, timing: StepTiming, cache_tokens: int) -> Mapping[str, bytes]:
    """Return the NPZ file of each pool, by its name in the plan. The same arguments give the same bytes.

    Parameters
    ----------
    spec
        Gives token budgets and the lengths of the dataset.
    timing
        Seconds of the steps of a worker of each pool.
    cache_tokens
        Tokens of KV cache that a worker that decodes holds.
    """
    context_tokens = mean_context_tokens(spec.load)
    step_s = timing.prefill_step_s
    token_s = timing.prefill_token_s + timing.prefill_pair_s * context_tokens
    grid = decode_grid(spec, timing, cache_tokens)
    if spec.split.roles == ("aggregated",):
        return {step_times_file("aggregated"): _npz(step_s, token_s, spec.prefill.token_budget, grid)}
    recompute_token_s = timing.recompute_token_s + timing.recompute_pair_s * context_tokens
    no_decode = np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.full((2, 2), step_s)
    return {
        step_times_file("prefill"): _npz(step_s, token_s, spec.prefill.token_budget, no_decode),
        step_times_file("decode"): _npz(
            timing.recompute_step_s, recompute_token_s, spec.decode.token_budget, grid
        ),
    }


def mean_context_tokens(load: Load) -> float:
    """Return the mean of the tokens before a prompt's token, over all tokens of the dataset.

    It is sum of n^2 / 2 over sum of n for prompts of n tokens.
    """
    prompts, _ = draw_lengths(load.dataset, load.dataset.samples, False, load.shuffle_seed)
    tokens = prompts.astype(np.float64)
    return float((tokens**2).sum() / (2 * tokens.sum()))


def decode_grid(
    spec: TrialSpec, timing: StepTiming, cache_tokens: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the axes of a decode table and its seconds.

    Parameters
    ----------
    spec
        Gives the longest context.
    timing
        Gives the seconds of a decode step.
    cache_tokens
        Tokens of KV cache that a decode worker holds: the largest sum of contexts.

    Returns
    -------
    Sums of contexts (tokens, shape (k,)), mean contexts (tokens, (c,)), seconds of a step ((k, c)). The
    quotient of sum and mean is the batch; a point beyond the largest batch has the time of the largest.
    """
    batch_s, context_token_s = timing.decode_batch_s, timing.decode_context_token_s
    sums = _axis(float(cache_tokens))
    means = _axis(float(spec.decode.max_sequence_tokens))
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
