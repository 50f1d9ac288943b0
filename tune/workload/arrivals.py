"""Compute when each query is issued, by LoadGen's Server scenario or by a trace, before the run."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.spec.load import Load
from tune.workload.length_files import find_lengths, read_rows

_DRAWS_32_BIT = 2.0**32
"""Number of values of a 32-bit draw."""


def arrivals_ns(load: Load) -> IntArray:
    """Return the arrivals of a whole run of `load`, int64 nanoseconds, shape (queries,).

    With permutations, LoadGen issues whole passes over the dataset until one ends at or after the minimum
    duration. Without, it would stop at a random count; tune pins the count to rate x duration. A trace is
    repeated in its own order; between the passes lies its mean gap.

    Source: GenerateQueries in MLPerf Inference, loadgen/loadgen.cc.
    """
    if load.trace:
        return _trace_ns(load)
    if not load.concatenate_permutation:
        return schedule_ns(load.expected_queries, load.offered_qps, load.schedule_seed)
    samples = load.dataset.samples
    fewest = math.ceil(load.min_queries / samples)
    passes = load.expected_queries // samples
    while True:
        arrivals = schedule_ns(passes * samples, load.offered_qps, load.schedule_seed)
        pass_ends_ns = arrivals[samples - 1 :: samples]
        lasting = int(np.searchsorted(pass_ends_ns, load.min_duration_ms * 10**6)) + 1
        if lasting <= passes:
            return arrivals[: max(fewest, lasting) * samples]
        passes = lasting


def schedule_ns(queries: int, target_qps: float, seed: int) -> IntArray:
    """Return the arrival of each query since the start, int64 nanoseconds, shape (queries,); the first is 0.

    Source: LoadGen's `ScheduleDistribution` (MLPerf Inference, loadgen/utils.h) over libstdc++'s random.
    """
    gaps = _gaps_ns(queries, target_qps, seed)
    arrivals = np.zeros(queries, np.int64)
    np.cumsum(gaps[:-1], out=arrivals[1:])
    return arrivals


def _trace_ns(load: Load) -> IntArray:
    """Return the arrivals of the trace, scaled so that their mean rate is the load's."""
    rows = read_rows(find_lengths(str(load.dataset.path)), load.trace)
    assert rows.time_s is not None
    passes, row = np.divmod(np.arange(load.expected_queries), len(rows.time_s))
    at_own_rate_s = rows.time_s[row] + passes * (len(rows.time_s) / rows.mean_qps)
    return np.rint(at_own_rate_s * (rows.mean_qps / load.offered_qps) * 1e9).astype(np.int64)


def generated_query_duration_ns(queries: int, target_qps: float, seed: int) -> int:
    """Return LoadGen's `generated_query_duration` in nanoseconds.

    Parameters
    ----------
    queries
        Number of queries.
    target_qps
        Rate, queries/s.
    seed
        LoadGen's schedule seed.

    Returns
    -------
    int
        Sum of all gaps; their number is that of the gaps between arrivals plus one.
    """
    return int(_gaps_ns(queries, target_qps, seed).sum())


def _gaps_ns(queries: int, target_qps: float, seed: int) -> IntArray:
    """Return the gaps -ln(1 - u) / qps in whole nanoseconds, shape (queries,).

    u takes two draws of std::mt19937, the low word first, over 2^64. std::mt19937 keeps 32 bits of its seed.
    ValueError is raised for less than one query.
    """
    if queries < 1:
        raise ValueError(f"queries is {queries}; a schedule has at least one")
    gaps_s = _unit_gaps(queries, seed % 2**32) / target_qps
    return (gaps_s * 1e9).astype(np.int64)


@lru_cache(maxsize=4)
def _unit_gaps(queries: int, seed: int) -> FloatArray:
    """Return the gaps of one query per unit of time, (queries,); cached, as a search asks for many rates."""
    raw = np.random.RandomState(seed)._bit_generator.random_raw(2 * queries).astype(np.float64)
    uniform: FloatArray = (raw[0::2] + raw[1::2] * _DRAWS_32_BIT) / _DRAWS_32_BIT**2
    return -np.log(1.0 - uniform)
