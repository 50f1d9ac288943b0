"""The run as LoadGen will issue it: when each query arrives, how long its prompt and its answer are."""

from __future__ import annotations

from dataclasses import dataclass

from tune.probe.arrivals import arrivals_ns
from tune.probe.lengths import draw_lengths
from tune.results.requests import IntArray
from tune.spec.load import Load


@dataclass(frozen=True, eq=False)
class Schedule:
    """Queries in order of arrival; each array has shape (queries,).

    Lengths belong to a query's position, not to the sample index LoadGen hands out: every place that runs
    this load then asks the same questions in the same order.
    """

    arrival_ns: IntArray
    input_tokens: IntArray
    output_tokens: IntArray

    def __len__(self) -> int:
        return len(self.arrival_ns)


def draw_schedule(load: Load) -> Schedule:
    """The queries LoadGen will issue. Raises FixCommand for lengths that cannot be drawn."""
    arrival_ns = arrivals_ns(load)
    return Schedule(
        arrival_ns,
        *draw_lengths(load.dataset, len(arrival_ns), load.concatenate_permutation, load.length_seed),
    )
