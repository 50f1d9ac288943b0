"""Read the time of every step from the log of a vLLM worker with enable_logging_iteration_details."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LINE = re.compile(
    r"Iteration\(\d+\): (\d+) context requests, (\d+) context tokens, (\d+) generation requests, "
    r"(\d+) generation tokens, iteration elapsed time: ([\d.]+) ms"
)
"""Source: vLLM 0.23.0, vllm/v1/engine/core.py; seen on two H200 (tests/data/vllm)."""


class Iteration(NamedTuple):
    """Hold one step: the prompts that it read, the sequences that it continued, and its time.

    A decode worker that takes over a KV cache counts its prompt as one token.
    """

    context_requests: int
    context_tokens: int
    generation_requests: int
    generation_tokens: int
    elapsed_s: float


def read_iterations(lines: Iterable[str]) -> Iterator[Iteration]:
    """Yield the steps of a worker in the order of its log."""
    for line in lines:
        if found := _LINE.search(line):
            context, context_tokens, generation, generation_tokens = map(int, found.groups()[:4])
            yield Iteration(context, context_tokens, generation, generation_tokens, float(found[5]) / 1e3)
