"""Decide at a series of rates whether a run holds its SLO in more than half of several shuffles. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tune.capacity.futility import more_than_half
from tune.core.threads import map_ahead


class ShuffleMajority:
    """Remember for each shuffle the rates that held and missed, so that a further rate simulates few of them.

    A shuffle that held is assumed to hold at every lower rate, and one that missed to miss at every higher
    one. `holds_shuffle` says whether a shuffle holds at a rate, queries/s; it is called in `threads` threads.
    `asked` are the shuffles that decided at each rate at which no verdict was assumed.
    """

    def __init__(
        self, shuffles: Sequence[int], holds_shuffle: Callable[[float, int], bool], threads: int
    ) -> None:
        self._shuffles, self._holds_shuffle, self._threads = shuffles, holds_shuffle, threads
        self.asked: dict[float, list[int]] = {}
        self._held_qps = dict.fromkeys(shuffles, 0.0)
        self._missed_qps = dict.fromkeys(shuffles, float("inf"))

    def holds(self, qps: float) -> bool:
        """Return whether more than half of the shuffles hold at `qps`."""
        return more_than_half(self._verdicts(qps), len(self._shuffles))

    def _verdicts(self, qps: float) -> Iterator[bool]:
        """Yield the known verdicts, then those that have to be simulated, in the order of the shuffles."""
        open_shuffles = []
        for shuffle in self._shuffles:
            if self._held_qps[shuffle] >= qps or self._missed_qps[shuffle] <= qps:
                yield self._held_qps[shuffle] >= qps
            else:
                open_shuffles.append(shuffle)
        verdicts = map_ahead(partial(self._holds_shuffle, qps), open_shuffles, self._threads)
        for shuffle, holds in zip(open_shuffles, verdicts, strict=True):
            (self._held_qps if holds else self._missed_qps)[shuffle] = qps
            if len(open_shuffles) == len(self._shuffles):
                self.asked.setdefault(qps, []).append(shuffle)
            yield holds
