"""Compute in which stages the time of a probe's requests went, and how full its pools were."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tune.core.arrays import IntArray
from tune.records.outcome import Breakdown
from tune.records.requests import PoolUse, RequestLog, Stages
from tune.spec.engine import Engine

TAIL_FRAC = 0.02
"""Share of the slowest first tokens that stands for the 99th percentile, which is its median."""

_STAGES = ("queue_s", "prefill_s", "transfer_s", "slot_s", "first_step_s")


def breakdown(log: RequestLog, good: NDArray[np.bool_], decode: Engine) -> Breakdown | None:
    """Return stages and pool utilisation of `log`, None where it records neither.

    Parameters
    ----------
    log
        The requests of a probe.
    good
        Which requests were answered, shape (n,).
    decode
        The decode engine, whose settings say how many sequences a worker may hold.
    """
    if log.stages is None and log.pools is None:
        return None
    stages = _stages(log, log.stages, good) if log.stages else no_stages()
    return Breakdown(**stages, **pool_figures(log.pools, decode))


def decode_slots(engine: Engine) -> int:
    """Return how many sequences one decode worker may hold; a step has a token and its drafts for each."""
    budget = engine.token_budget // (1 + engine.draft_tokens)
    return engine.attention_ranks * min(engine.max_sequences, budget)


def no_stages() -> dict[str, float | None]:
    """Return the stages of requests without recorded marks, all None."""
    return dict.fromkeys(_STAGES)


def _stages(log: RequestLog, stages: Stages, good: NDArray[np.bool_]) -> dict[str, float | None]:
    """Return mean seconds of each stage over the requests whose marks are all known, and over the slowest."""
    marks = np.stack(
        [
            log.scheduled_ns,
            stages.prefill_start_ns,
            stages.prefill_done_ns,
            stages.kv_arrived_ns,
            stages.decode_start_ns,
            log.first_token_ns,
        ]
    )
    known = good & (marks >= 0).all(axis=0)
    if not known.any():
        return no_stages()
    ttft_ns = log.first_token_ns - log.scheduled_ns
    tail = known & (ttft_ns >= np.quantile(ttft_ns[known], 1 - TAIL_FRAC))
    means: dict[str, float | None] = {}
    for prefix, selected in (("", known), ("tail_", tail)):
        seconds = np.diff(marks[:, selected], axis=0).mean(axis=1) / 1e9
        means |= {prefix + name: float(mean) for name, mean in zip(_STAGES, seconds, strict=True)}
        means[f"{prefix}frontend_in_s"] = _mean_s(log.scheduled_ns, stages.prefill_queued_ns, selected)
        means[f"{prefix}frontend_out_s"] = _mean_s(stages.first_made_ns, log.first_token_ns, selected)
    prefill_ns = stages.prefill_done_ns - stages.prefill_start_ns
    uncontended_ns = _uncontended_ns(log.input_tokens[known], prefill_ns[known])
    means["tail_prefill_uncontended_s"] = float(uncontended_ns[tail[known]].mean()) / 1e9
    return means


def _uncontended_ns(tokens: IntArray, prefill_ns: IntArray) -> IntArray:
    """Return the shortest prefill of any prompt at least as long, shape (n,).

    It bounds the prefill of each prompt on an idle worker. In the rest of a prefill its worker also served
    other prompts.
    """
    order = np.lexsort((-prefill_ns, tokens))  # of equal prompts the shortest prefill comes last
    uncontended_ns = np.empty_like(prefill_ns)
    uncontended_ns[order] = np.minimum.accumulate(prefill_ns[order][::-1])[::-1]
    return uncontended_ns


def _mean_s(from_ns: IntArray | None, to_ns: IntArray | None, selected: NDArray[np.bool_]) -> float | None:
    """Return mean seconds between two marks, None where one is not recorded for all of `selected`."""
    if from_ns is None or to_ns is None or bool((np.minimum(from_ns, to_ns)[selected] < 0).any()):
        return None
    return float((to_ns - from_ns)[selected].mean()) / 1e9


def pool_figures(pools: PoolUse | None, decode: Engine) -> dict[str, float | None]:
    """Return how full the pools were, by the names of Breakdown; None where not recorded."""
    figures: dict[str, float | None] = {}
    for name, by_worker in (
        ("prefill_utilisation", pools.prefill_busy_frac if pools else None),
        ("decode_batch", pools.decode_batch_mean if pools else None),
        ("kv_used_frac", pools.decode_kv_used_frac if pools else None),
    ):
        known = None if by_worker is None or not len(by_worker) else by_worker
        figures[name] = None if known is None else float(known.mean())
        figures[f"{name}_max"] = None if known is None else float(known.max())
    batch = figures["decode_batch"]
    return figures | {"decode_slots_frac": None if batch is None else batch / decode_slots(decode)}
