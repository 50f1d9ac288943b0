"""The run as LoadGen will issue it: how many queries, when each arrives, how long prompt and answer are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tune.client.settings import ClientSettings
from tune.probe.arrivals import schedule_ns
from tune.probe.lengths import draw_lengths
from tune.results.requests import IntArray


@dataclass(frozen=True, eq=False)
class Schedule:
    """Queries in order of arrival; each array has shape (queries,).

    Lengths belong to a query's position, not to the sample index LoadGen hands out: every place that runs
    this load then asks the same questions in the same order. `min_queries` and `min_duration_ms` make
    LoadGen issue exactly these queries.
    """

    arrival_ns: IntArray
    input_tokens: IntArray
    output_tokens: IntArray
    min_queries: int
    min_duration_ms: int

    def __len__(self) -> int:
        return len(self.arrival_ns)


def draw_schedule(settings: ClientSettings) -> Schedule:
    """The queries LoadGen will issue. Raises FixCommand for lengths that cannot be drawn.

    With permutations LoadGen's own rule decides how many whole passes last `min_duration_s`. Without, the
    count is fixed at `min_duration_s` x `target_qps`, where LoadGen alone would stop at a random one, so its
    minimum duration is lowered to the last arrival where that comes earlier.
    Answers are as long as drawn, at most `max_output_tokens`.
    """
    if settings.concatenate_permutation:
        arrival_ns = _whole_passes(settings)
        min_queries, min_duration_ms = settings.min_queries, settings.min_duration_ms
    else:
        min_queries = max(settings.min_queries, math.ceil(settings.target_qps * settings.min_duration_s))
        arrival_ns = schedule_ns(min_queries, settings.target_qps, settings.schedule_seed)
        min_duration_ms = min(settings.min_duration_ms, int(arrival_ns[-1]) // 1_000_000)
    inputs, outputs = draw_lengths(
        settings.lengths, len(arrival_ns), settings.concatenate_permutation, settings.length_seed
    )
    return Schedule(
        arrival_ns, inputs, np.minimum(outputs, settings.max_output_tokens), min_queries, min_duration_ms
    )


def _whole_passes(settings: ClientSettings) -> IntArray:
    """Arrivals of as many whole passes as hold min_queries and reach min_duration.

    Source: GenerateQueries in MLPerf Inference, loadgen/loadgen.cc, with sample_concatenate_permutation.
    """
    fewest = math.ceil(settings.min_queries / settings.samples)
    passes = max(fewest, math.ceil(settings.target_qps * settings.min_duration_s / settings.samples))
    while True:
        arrival_ns = schedule_ns(passes * settings.samples, settings.target_qps, settings.schedule_seed)
        pass_ends_ns = arrival_ns[settings.samples - 1 :: settings.samples]
        lasts = np.searchsorted(pass_ends_ns, settings.min_duration_ms * 1_000_000) + 1
        if lasts <= passes:
            return arrival_ns[: max(fewest, int(lasts)) * settings.samples]
        passes *= 2
