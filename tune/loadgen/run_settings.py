"""Translate a load and its SLO into the settings that LoadGen takes and that its log states."""

from __future__ import annotations

from dataclasses import dataclass

from tune.spec.load import Load, Slo
from tune.spec.mlperf_rules import ROUNDS, round_of

LIFTED_LIMIT_NS = 10**18
"""Limit in LoadGen's settings that stands for a lifted one: 31 years."""


@dataclass(frozen=True)
class LoadGenSettings:
    """Hold the settings of a Server scenario with token latencies, in LoadGen's own units."""

    target_qps: float
    min_duration_ms: int
    min_queries: int
    samples: int
    concatenate_permutation: bool
    ttft_limit_ns: int
    tpot_limit_ns: int
    schedule_seed: int

    @property
    def sample_seeds(self) -> tuple[int, int]:
        """Return the seeds of the sample library and of the sample indices.

        They are those of the round that has the schedule's seed, else of the oldest in ROUNDS.
        """
        known = round_of(self.schedule_seed) or ROUNDS[0]
        return known.qsl_seed, known.sample_index_seed


def loadgen_settings(load: Load, slo: Slo, last_arrival_ns: int) -> LoadGenSettings:
    """Return the settings that make LoadGen issue the arrivals of `load`.

    Without permutations LoadGen issues queries until it reaches the minimum duration. The count is therefore
    pinned, and the duration is lowered to the last arrival where that is earlier. So are those of a trace,
    whose last arrival comes a gap before the end of its pass.

    Parameters
    ----------
    load
        The load; with `concatenate_permutation` its settings are the benchmark's.
    slo
        The limits; LoadGen knows those on p99 TTFT and p99 TPOT only.
    last_arrival_ns
        Arrival of the last request, nanoseconds since the start of the test.

    Returns
    -------
    LoadGenSettings
        A lifted limit is LIFTED_LIMIT_NS. Source: GenerateQueries in MLPerf Inference, loadgen/loadgen.cc.
    """
    min_queries, min_duration_ms = load.min_queries, load.min_duration_ms
    if load.trace or not load.concatenate_permutation:
        min_queries, min_duration_ms = load.expected_queries, min(min_duration_ms, last_arrival_ns // 10**6)
    return LoadGenSettings(
        target_qps=load.offered_qps,
        min_duration_ms=min_duration_ms,
        min_queries=min_queries,
        samples=load.dataset.samples,
        concatenate_permutation=load.concatenate_permutation,
        ttft_limit_ns=limit_ns(slo.ttft_p99_s),
        tpot_limit_ns=limit_ns(slo.tpot_p99_s),
        schedule_seed=load.schedule_seed,
    )


def limit_ns(limit_s: float | None) -> int:
    """Return a limit in LoadGen's unit, LIFTED_LIMIT_NS for a lifted one."""
    return LIFTED_LIMIT_NS if limit_s is None else round(limit_s * 1e9)
