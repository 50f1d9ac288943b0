"""Summarise the lengths that a load sends: what rules, figures and messages state of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from tune.core.arrays import IntArray
from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset, LognormalLengths
from tune.spec.load import Load
from tune.spec.memory import MeanSequence
from tune.workload.distributions import lognormal_parameters
from tune.workload.lengths import draw_lengths


@dataclass(frozen=True)
class LengthSummary:
    """Hold figures of the lengths of all samples, in tokens."""

    mean: float
    median: float
    p99: float
    longest: int

    @classmethod
    def of(cls, tokens: IntArray) -> LengthSummary:
        """Return the figures of `tokens` (n,)."""
        median, p99 = np.percentile(tokens, (50, 99))
        return cls(float(tokens.mean()), float(median), float(p99), int(tokens.max()))

    def __str__(self) -> str:
        """Return the figures in words."""
        if self.longest == self.mean:
            return f"all {self.longest:,}"
        return (
            f"mean {self.mean:,.0f}, median {self.median:,.0f}, p99 {self.p99:,.0f}, longest {self.longest:,}"
        )


@lru_cache(maxsize=8)
def summarise_lengths(dataset: Dataset) -> tuple[LengthSummary, LengthSummary]:
    """Return the figures of the prompts and of the answers of `dataset`; errors as of `draw_lengths`."""
    prompts, answers = draw_lengths(dataset, dataset.samples, True, 0)
    return LengthSummary.of(prompts), LengthSummary.of(answers)


def clipped_frac(lengths: LognormalLengths) -> tuple[float, float]:
    """Return the shares of `lengths` below and above their range, before the clip."""
    normal = NormalDist(*lognormal_parameters(lengths))
    return normal.cdf(math.log(lengths.min_tokens)), 1 - normal.cdf(math.log(lengths.max_tokens))


def mean_sequence(dataset: Dataset) -> MeanSequence:
    """Return the mean lengths of `dataset`, by which memory rules count.

    Records are read on machines that lack the dataset's file: its distributions, or the longest lengths,
    then stand for it. Raises ConfigurationError for a distribution that cannot exist.
    """
    try:
        prompts, answers = summarise_lengths(dataset)
    except ConfigurationError:
        if dataset.path is None:
            raise
        if dataset.inputs is None or dataset.outputs is None:
            longest = dataset.longest_answer_tokens
            return MeanSequence(dataset.longest_prompt_tokens, longest, longest)
        prompts, answers = summarise_lengths(dataset.model_copy(update={"path": None}))
    return MeanSequence(prompts.mean, answers.mean, dataset.longest_answer_tokens)


def describe_workload(load: Load) -> str:
    """Return name, arrivals and lengths of a load, at whatever rate; errors as of `draw_lengths`."""
    prompts, answers = summarise_lengths(load.dataset)
    arrivals = "arrivals of the trace" if load.trace else "Poisson arrivals"
    if load.is_closed_loop:
        arrivals = "closed loop"
    return f"{load.dataset.name}: {arrivals}; prompts: {prompts}; answers: {answers} tokens"


def describe_load(load: Load) -> str:
    """Return the workload, with the requests of a run and their rate; errors as of `draw_lengths`."""
    sent = f"of {load.text}" if load.is_closed_loop else f"at a mean of {load.offered_qps:.4g} queries/s"
    return f"{describe_workload(load)}; {load.expected_queries:,} requests {sent}"
