"""Read the time of every step from the log of a vLLM worker with enable_logging_iteration_details."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tune.engines.base import LoggedStep
from tune.spec.step_table import Phase

_LINE = re.compile(
    r"Iteration\(\d+\): (\d+) context requests, (\d+) context tokens, (\d+) generation requests, "
    r"(\d+) generation tokens, iteration elapsed time: ([\d.]+) ms"
)
"""Source: vLLM 0.23.0, vllm/v1/engine/core.py; seen on two H200 (tests/data/vllm)."""

_ROW = re.compile(r"(\d+),(\d+),(\d+),(\d+),([\d.]+(?:e-\d+)?)\s*")
"""A step as `python -m tune.engines.dynamo_vllm` prints it, in seconds."""


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
    """Yield the steps of a worker in the order of its log, or of the CSV that was made of it."""
    for line in lines:
        found, scale = _LINE.search(line), 1e-3
        if found is None:
            found, scale = _ROW.fullmatch(line), 1.0
        if found:
            context, context_tokens, generation, generation_tokens = map(int, found.groups()[:4])
            elapsed_s = float(found[5]) * scale
            yield Iteration(context, context_tokens, generation, generation_tokens, elapsed_s)


def read_vllm_steps(lines: Iterable[str]) -> Iterator[LoggedStep]:
    """Yield the steps with their phase; the log does not say how long contexts are."""
    for step in read_iterations(lines):
        batch = step.context_requests + step.generation_requests
        new_tokens = step.context_tokens + step.generation_tokens
        if batch == 0:
            continue
        phase: Phase | None = None if step.generation_requests else "prefill"
        if step.context_tokens == step.context_requests:  # caches that were taken over, if any
            phase = "decode"
        yield LoggedStep(phase, batch, new_tokens, None, step.elapsed_s)
