"""Provide small sweeps for the surrogate proposer, and a rack that it does not know."""

from __future__ import annotations

from tune.spec.space import IntDimension, Sweep

QUICK = (
    "load.mode=capacity",
    "load.dataset.samples=1000",
    "load.min_duration_s=30.0",
    "load.min_queries=1000",
)

SWEEP = Sweep(
    question="Which split?",
    n_trials=4,
    fill_decode=True,
    space={
        "prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=9, high=15),
    },
)

NARROW = (
    "+sweep=pd_split",
    "~sweep.space.prefill_max_num_tokens",
    "~sweep.space.decode_max_batch_size",
    "~sweep.space.decode_cuda_graphs",
    *QUICK,
)


def true_capacity_qps(workers: int) -> float:
    """Return the capacity of a made-up rack: prefill limits it up to 13 workers, decode from there on."""
    return min(1.2 * workers, 4.1 * (18 - workers))
