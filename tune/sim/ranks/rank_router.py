"""Choose the rank of a worker with attention data parallelism that serves a request for life."""

from __future__ import annotations

from tune.core.arrays import IntArray
from tune.core.jit import inlined
from tune.sim.queues import UNASSIGNED

FEWEST_TOKENS, FEWEST_REQUESTS, ROUND_ROBIN = 0, 1, 2
"""Routers among the ranks of a worker (`RankRouter`), as numbers for compiled code."""


@inlined
def choose_rank(router: int, requests: IntArray, tokens: IntArray, turn: int) -> int:
    """Return the rank of a worker, counted from 0, that serves its next request; a tie goes to the first.

    FEWEST_TOKENS takes the rank whose prompts have the fewest tokens, then the fewest requests. Out of the
    question are ranks as full as the fullest one, if that has more than all have on average with the new
    request. FEWEST_REQUESTS counts requests alone, and ROUND_ROBIN nothing.

    Parameters
    ----------
    router
        One of this module's constants.
    requests, tokens
        Requests of each rank that are not done, and the tokens of their prompts, shape (ranks,).
    turn
        Requests that the worker has had before.

    Returns
    -------
    int
        The rank.

    Source: TensorRT-LLM, DefaultADPRouter in _torch/pyexecutor/scheduler/adp_router.py (FEWEST_TOKENS).
    """
    ranks = len(requests)
    if router == ROUND_ROBIN:
        return turn % ranks
    fullest, total = 0, 0
    for rank in range(ranks):
        fullest = max(fullest, requests[rank])
        total += requests[rank]
    allowed = max(fullest, total // ranks + 1)
    best = UNASSIGNED
    for rank in range(ranks):
        if router == FEWEST_TOKENS and requests[rank] >= allowed:
            continue
        if best == UNASSIGNED:
            best = rank
            continue
        fewer = requests[rank] < requests[best]
        if router == FEWEST_TOKENS and tokens[rank] != tokens[best]:
            fewer = tokens[rank] < tokens[best]
        if fewer:
            best = rank
    return int(best)
