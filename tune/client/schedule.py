"""The run as LoadGen will issue it: when each query arrives, how long its prompt and its answer are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tune.client.client_settings import ClientRun
from tune.core.arrays import IntArray
from tune.workload.arrivals import arrivals_ns
from tune.workload.lengths import draw_lengths


@dataclass(frozen=True, eq=False)
class Schedule:
    """Queries in order of arrival; each array has shape (queries,).

    Lengths belong to a query's position, not to the sample index LoadGen hands out: every place that runs
    this load then asks the same questions in the same order. An answer of fewer than `fewest_tokens` or more
    than `most_tokens` is wrong; the latter is what is asked for. `output_tokens` is what the dataset expects.
    """

    arrival_ns: IntArray
    input_tokens: IntArray
    output_tokens: IntArray
    fewest_tokens: IntArray
    most_tokens: IntArray

    def __len__(self) -> int:
        return len(self.arrival_ns)


def draw_schedule(settings: ClientRun) -> Schedule:
    """The queries LoadGen will issue. Raises ConfigurationError for lengths that cannot be drawn.

    A prompt made to length has no natural answer: it is asked for all its tokens. The benchmark's own prompts
    end where the engine ends them, at the dataset's longest answer at the latest. Neither is asked for more
    than max_seq_len leaves after its prompt, where engines end it; a prompt that leaves nothing, which they
    refuse, is asked for one token.
    """
    load = settings.load
    arrival_ns = arrivals_ns(load)
    dataset, queries = load.dataset, len(arrival_ns)
    inputs, outputs = draw_lengths(
        dataset, queries, load.concatenate_permutation, load.shuffle_seed, stratified=load.is_short_run
    )
    fewest, most = outputs, outputs
    if dataset.holds_prompts:
        fewest, most = np.ones_like(outputs), np.full_like(outputs, dataset.longest_answer_tokens)
    left = np.maximum(settings.max_seq_len - inputs, 1)
    return Schedule(arrival_ns, inputs, outputs, np.minimum(fewest, left), np.minimum(most, left))
