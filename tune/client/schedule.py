"""Draw the run as it will be issued: arrival, prompt length and answer length of each query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.client.client_settings import ClientRun
from tune.core.arrays import IntArray
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import request_lengths
from tune.workload.mlperf_pickle import read_pickle_lengths

NOT_SENT = np.iinfo(np.int64).max // 2
"""Arrival of a query that no user has sent yet, in nanoseconds: later than any; sums do not overflow."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """Hold the queries in order of arrival; each array has shape (queries,).

    Lengths belong to the position of a query, not to the sample index that LoadGen hands out: every backend
    that runs this load then sends the same prompts in the same order. An answer with fewer than
    `min_output_tokens` or more than `max_output_tokens` tokens is wrong; the request asks for the maximum.
    `output_tokens` is what the dataset expects. In a closed loop (`is_closed_loop`) an arrival is NOT_SENT
    until the query is sent.
    """

    arrival_ns: IntArray
    input_tokens: IntArray
    output_tokens: IntArray
    min_output_tokens: IntArray
    max_output_tokens: IntArray
    is_closed_loop: bool = False

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.arrival_ns)


def draw_schedule(settings: ClientRun) -> Schedule:
    """Return the queries of the run. Raises ConfigurationError for lengths that cannot be drawn.

    A prompt made to length has no natural answer: the request asks for all its tokens. The benchmark's own
    prompts end where the engine ends them, at the dataset's longest answer at the latest. No request asks for
    more than max_seq_len leaves after its prompt, where engines end an answer; where it leaves nothing, which
    engines refuse, the request asks for one token.
    """
    load = settings.load
    arrival_ns = np.full(load.expected_queries, NOT_SENT) if load.is_closed_loop else arrivals_ns(load)
    inputs, outputs = request_lengths(load, len(arrival_ns))
    if load.dataset.holds_prompts:
        return _of_prompts(settings, arrival_ns, inputs, outputs)
    remaining_tokens = np.maximum(settings.max_seq_len - inputs, 1)
    limited = np.minimum(outputs, remaining_tokens)
    return Schedule(arrival_ns, inputs, outputs, limited, limited, load.is_closed_loop)


def accuracy_schedule(settings: ClientRun) -> Schedule:
    """Return one query for each sample of the benchmark's pickle, in the order of its rows.

    All arrival times are 0: LoadGen issues the samples in an order of its own, at the rate of the load.
    Raises ConfigurationError for a file that cannot be used.
    """
    inputs, _ = read_pickle_lengths(settings.load.dataset)
    longest = np.full_like(inputs, settings.load.dataset.longest_answer_tokens)
    return _of_prompts(settings, np.zeros_like(inputs), inputs, longest)


def _of_prompts(settings: ClientRun, arrival_ns: IntArray, inputs: IntArray, outputs: IntArray) -> Schedule:
    """Return the queries of the benchmark's own prompts, whose answers the engine ends."""
    longest_tokens = np.maximum(
        np.minimum(settings.load.dataset.longest_answer_tokens, settings.max_seq_len - inputs), 1
    )
    fewest = np.ones_like(outputs)
    return Schedule(arrival_ns, inputs, outputs, fewest, longest_tokens, settings.load.is_closed_loop)
