"""Turn engine settings and calibration into the plain numbers that the serving loops need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import FloatArray, IntArray
from tune.engines.kv_capacity import kv_capacity_tokens
from tune.sim.decode_pool import (
    EVICT_NEWEST,
    RESERVE_ANSWERS,
    WHOLE_BATCHES,
    DecodeSteps,
    DecodeWorker,
    linear_steps,
)
from tune.sim.prefill_pool import PrefillWorker
from tune.sim.ranks.rank_router import FEWEST_REQUESTS, FEWEST_TOKENS, ROUND_ROBIN
from tune.sim.step_tables import decode_steps, prefill_line
from tune.sim.step_times import StepTimes
from tune.spec.cluster import Calibration, RankRouter
from tune.spec.engine import BatchingPolicy, Engine
from tune.spec.memory import weight_bytes_per_gpu
from tune.spec.split import HEAD_NODE, Role, place_workers
from tune.spec.trial import TrialSpec

LARGE_BATCH_SEQUENCES = 128
"""Padded batch size above which a step pays the calibration's `large_batch_weight_reads`: the rows of one
GEMM tile, beyond which a second tile reads the weights again. One such read would explain the TPOT of
NVIDIA's MLPerf Inference v5.1 run, half of whose requests are near 45 ms and a quarter at 58 ms."""

_POLICY: dict[BatchingPolicy, int] = {
    "reserve_answers": RESERVE_ANSWERS,
    "evict_newest": EVICT_NEWEST,
    "whole_batches": WHOLE_BATCHES,
}
"""Number of each scheduler policy in compiled code."""

_RANK_ROUTER: dict[RankRouter, int] = {
    "fewest_tokens": FEWEST_TOKENS,
    "fewest_requests": FEWEST_REQUESTS,
    "round_robin": ROUND_ROBIN,
}
"""Number of each router among ranks in compiled code."""


def rank_router(calibration: Calibration) -> int:
    """Return what divides the requests of a worker among its ranks, as a number for compiled code."""
    return _RANK_ROUTER[calibration.rank_router or "fewest_tokens"]


def prefill_worker(spec: TrialSpec, calibration: Calibration, window_s: float) -> PrefillWorker:
    """Return the model of a prefill worker.

    Parameters
    ----------
    spec
        Trial whose prefill engine is modelled.
    calibration
        Scales and overheads of the hardware.
    window_s
        End of the window in which usage is counted, seconds.

    Returns
    -------
    PrefillWorker
        Pipeline stages work on different steps at once, each on its share of the layers. With a table of
        prefill steps, the formula's costs of a step are 0.
    """
    engine, scale = spec.prefill, calibration.prefill_scale
    step_s = token_s = pair_s = 0.0
    stall_token_s = calibration.kv_stall_token_s or 0.0
    if not calibration.prefill_steps:
        times = StepTimes.of(spec.model, spec.hardware, engine)
        share = scale / engine.pipeline_stages
        step_s = share * times.prefill_step_s + _host_s(engine, calibration)
        token_s, pair_s = share * times.prefill_token_s, share * times.prefill_pair_s
    return PrefillWorker(
        max_sequences=engine.max_sequences,
        token_budget=engine.token_budget,
        kv_tokens=kv_capacity_tokens(spec, "prefill"),
        kv_block_tokens=engine.kv_block_tokens,
        chunked=engine.chunks_prompts,
        equal_progress=engine.chunk_order == "equal_progress",
        static_batch=engine.batching == "whole_batches",
        step_s=step_s,
        token_s=token_s + stall_token_s,
        pair_s=pair_s,
        table_scale=scale if calibration.prefill_steps else 0.0,
        fill_steps=engine.pipeline_stages - 1,
        window_s=window_s,
    )


def decode_worker(
    spec: TrialSpec, calibration: Calibration, window_s: float
) -> tuple[DecodeWorker, DecodeSteps]:
    """Return the model of a decode worker, and its step times.

    Parameters
    ----------
    spec
        Trial whose decode engine is modelled.
    calibration
        Scales and overheads of the hardware.
    window_s
        End of the window in which usage is counted, seconds.

    Returns
    -------
    DecodeWorker
        With a pipeline every token still passes all layers, while the batch is split over the stages.
    DecodeSteps
        Those of the calibration's table, else of the roofline.
    """
    engine = spec.decode
    recompute_step_s, recompute_token_s, recompute_pair_s = _recompute_costs(spec, calibration)
    worker = DecodeWorker(
        policy=_POLICY[engine.batching],
        slots=min(engine.max_sequences, engine.token_budget // (1 + engine.draft_tokens)),
        kv_tokens=kv_capacity_tokens(spec, "decode"),
        kv_block_tokens=engine.kv_block_tokens,
        transfer_latency_s=calibration.kv_transfer_latency_s,
        stall_token_s=calibration.kv_stall_token_s or 0.0,
        token_budget=engine.token_budget,
        recompute_step_s=recompute_step_s,
        recompute_token_s=recompute_token_s,
        recompute_pair_s=recompute_pair_s,
        window_s=window_s,
    )
    if calibration.decode_steps:
        gap_s = calibration.decode_step_gap_s or 0.0
        return worker, decode_steps(calibration.decode_steps, worker.slots, calibration.decode_scale, gap_s)
    return worker, _roofline_steps(spec, calibration, worker.slots)


def _recompute_costs(spec: TrialSpec, calibration: Calibration) -> tuple[float, float, float]:
    """Return the seconds of a step, of a token and of a pair in which a decode worker prefills."""
    scale = calibration.prefill_scale
    if calibration.prefill_steps:
        step_s, token_s = prefill_line(calibration.prefill_steps)
        return scale * step_s, scale * token_s, 0.0
    times = StepTimes.of(spec.model, spec.hardware, spec.decode)
    return scale * times.prefill_step_s, scale * times.prefill_token_s, scale * times.prefill_pair_s


def _roofline_steps(spec: TrialSpec, calibration: Calibration, slots: int) -> DecodeSteps:
    """Return the step times of a decode worker by the roofline, for batches of 0 to `slots`."""
    engine = spec.decode
    times, stages = StepTimes.of(spec.model, spec.hardware, engine), engine.pipeline_stages
    padded, has_graph = _padded_batches(engine, slots)
    batch_s = calibration.decode_scale * times.decode_batch_s(np.ceil(padded / stages))
    batch_s += _host_s(engine, calibration)
    read_s = weight_bytes_per_gpu(spec.model, engine) / spec.hardware.hbm_bytes_per_s
    reads_again = padded > LARGE_BATCH_SEQUENCES
    batch_s += np.where(reads_again, calibration.large_batch_weight_reads * read_s, 0.0)
    batch_s += np.where(has_graph, 0.0, calibration.no_graph_overhead_s)
    return linear_steps(batch_s, calibration.decode_scale * times.decode_context_token_s / stages)


def worker_slowdowns(spec: TrialSpec, calibration: Calibration, role: Role) -> FloatArray:
    """Return the calibration's factor on the steps of each worker of a pool.

    Parameters
    ----------
    spec
        Trial whose placement says which workers share the frontend's node.
    calibration
        Slowdown of that node and of the last decode worker.
    role
        Pool that the workers belong to.

    Returns
    -------
    FloatArray
        Factors, 1 for an ordinary worker, shape (workers,).
    """
    split = spec.split
    slow = np.ones(split.workers(role))
    for worker in place_workers(spec.hardware, spec.prefill, spec.decode, split) or ():
        if worker.role == role and HEAD_NODE in worker.nodes:
            slow[worker.index] *= calibration.head_node_scale
    if role == "decode":
        slow[-1] *= calibration.last_decode_worker_scale
    return slow


def _host_s(engine: Engine, calibration: Calibration) -> float:
    """Return the seconds that the host adds to each step if it does not prepare the next in parallel."""
    return 0.0 if engine.overlaps_host_work else calibration.no_overlap_overhead_s


def _padded_batches(engine: Engine, slots: int) -> tuple[IntArray, NDArray[np.bool_]]:
    """Return for batch sizes 0..slots the size that is computed, and whether a CUDA graph runs it.

    With padding, the next captured size is computed; without, only exact sizes run a graph.

    Source: TensorRT-LLM's CUDA graph runner.
    """
    batch = np.arange(slots + 1)
    sizes = np.array(engine.captured_graph_sizes, np.int64)
    if not engine.pads_to_graphs:
        return batch, np.isin(batch, sizes)
    has_graph = batch <= sizes[-1]
    next_size = sizes[np.minimum(np.searchsorted(sizes, batch), len(sizes) - 1)]
    return np.where(has_graph, next_size, batch), has_graph
