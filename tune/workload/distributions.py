"""Draw lengths as quantiles of equal probability, so that a distribution has one dataset."""

from __future__ import annotations

import csv
import math
from functools import lru_cache
from importlib.resources import files
from statistics import NormalDist

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.spec.dataset import (
    Dataset,
    LognormalLengths,
    MeasuredInputs,
    RangeLengths,
    SyntheticInputs,
    SyntheticOutputs,
)

_BETA_BINS = 1 << 14
"""Number of bins over which the density of a beta distribution is summed."""

_DRAWS_PER_SAMPLE = 100
"""Number of quantiles drawn from the measured answers of each sample."""

_Z95 = NormalDist().inv_cdf(0.95)


@lru_cache(maxsize=8)
def synthetic_lengths(dataset: Dataset) -> tuple[IntArray, IntArray]:
    """Return prompt and answer lengths of the samples, int64, shape (samples,) each.

    Both are sorted, and nothing says which belong together; measured ones are the pairs of `_paired_lengths`.
    Raises ConfigurationError if a distribution cannot exist.
    """
    assert dataset.inputs is not None
    if isinstance(dataset.inputs, MeasuredInputs):
        return _paired_lengths(dataset)
    return _prompt_lengths(dataset.inputs, dataset.samples), answer_lengths(dataset)


def answer_lengths(dataset: Dataset) -> IntArray:
    """Return sorted answer lengths of the samples, shape (samples,); errors as in `synthetic_lengths`."""
    outputs = dataset.outputs
    assert outputs is not None
    if isinstance(outputs, SyntheticOutputs):
        return _measured_answer_lengths(outputs, dataset.samples, dataset.longest_answer_tokens)
    return _quantile_lengths(outputs, dataset.samples)


def _prompt_lengths(inputs: SyntheticInputs | RangeLengths | LognormalLengths, samples: int) -> IntArray:
    if not isinstance(inputs, SyntheticInputs):
        return _quantile_lengths(inputs, samples)
    quantiles = _input_quantiles(inputs, _probabilities(samples))
    return np.rint(np.clip(quantiles, inputs.min_tokens, inputs.max_tokens)).astype(np.int64)


def _quantile_lengths(lengths: RangeLengths | LognormalLengths, samples: int) -> IntArray:
    """Return `samples` sorted quantiles of a range of equal probability, or of a clipped lognormal."""
    if isinstance(lengths, RangeLengths):
        shortest, longest = lengths.shortest_tokens, lengths.longest_tokens
        return shortest + (_probabilities(samples) * (longest + 1 - shortest)).astype(np.int64)
    mu, sigma = lognormal_parameters(lengths)
    normal = NormalDist(mu, sigma)
    quantiles: FloatArray = np.exp([normal.inv_cdf(p) for p in _probabilities(samples)])
    return np.rint(np.clip(quantiles, lengths.min_tokens, lengths.max_tokens)).astype(np.int64)


def _probabilities(samples: int) -> FloatArray:
    """Return the middles of `samples` intervals of equal probability."""
    return (np.arange(samples) + 0.5) / samples


def lognormal_parameters(lengths: LognormalLengths) -> tuple[float, float]:
    """Return mean and standard deviation of the logarithm of a length before the clip.

    Raises ConfigurationError where no lognormal distribution has the two stated figures. Formulas: the mean
    is exp(mu + s^2 / 2), the median exp(mu), the variance (exp(s^2) - 1) exp(2 mu + s^2), the 95th percentile
    exp(mu + 1.645 s).
    """
    mean, median, sd, p95 = lengths.mean_tokens, lengths.median_tokens, lengths.sd_tokens, lengths.p95_tokens
    if median is not None and p95 is not None:
        if p95 <= median:
            raise ConfigurationError(
                f"load.dataset: p95_tokens {p95:g} lies below median_tokens {median:g}; expected it above."
            )
        return math.log(median), math.log(p95 / median) / _Z95
    if median is not None and sd is not None:
        return math.log(median), math.sqrt(math.log((1 + math.sqrt(1 + 4 * (sd / median) ** 2)) / 2))
    assert mean is not None
    if sd is not None:
        variance = math.log1p((sd / mean) ** 2)
        return math.log(mean) - variance / 2, math.sqrt(variance)
    assert p95 is not None
    spread = _Z95**2 - 2 * math.log(p95 / mean)
    if p95 <= mean or spread < 0:
        raise ConfigurationError(
            f"load.dataset: no lognormal distribution with mean_tokens {mean:g} has p95_tokens {p95:g}; "
            f"expected between {mean:g} and {mean * math.exp(_Z95**2 / 2):.0f}. State median_tokens or "
            "sd_tokens instead."
        )
    sigma = _Z95 - math.sqrt(spread)
    return math.log(mean) - sigma**2 / 2, sigma


def _input_quantiles(inputs: SyntheticInputs, probability: FloatArray) -> FloatArray:
    """Return prompt lengths at `probability` (n,); raise ConfigurationError if mean, sd and range clash."""
    low, high, mean, sd = inputs.min_tokens, inputs.max_tokens, inputs.mean_tokens, inputs.sd_tokens
    if not low <= mean <= high:
        raise ConfigurationError(
            f"load.dataset.inputs: mean_tokens {mean:g} lies outside min_tokens..max_tokens {low}..{high}; "
            "move the mean or the range."
        )
    if inputs.kind == "fixed" or sd == 0:
        return np.full(len(probability), mean)
    if inputs.kind == "normal":
        normal = NormalDist(mean, sd)
        return np.array([normal.inv_cdf(p) for p in probability])
    if sd**2 >= (mean - low) * (high - mean):
        max_sd = ((mean - low) * (high - mean)) ** 0.5
        raise ConfigurationError(
            f"load.dataset.inputs: no beta distribution on {low}..{high} with mean {mean:g} has a standard "
            f"deviation of {sd:g}; set sd_tokens below {max_sd:.0f}."
        )
    return low + (high - low) * _beta_quantiles((mean - low) / (high - low), sd / (high - low), probability)


def _beta_quantiles(mean: float, sd: float, probability: FloatArray) -> FloatArray:
    """Return quantiles of the beta distribution on 0..1 of given mean and sd, by summing its density.

    Source: method of moments, a = m t and b = (1 - m) t with t = m (1 - m) / sd^2 - 1.
    """
    total = mean * (1 - mean) / sd**2 - 1
    edges = np.linspace(0.0, 1.0, _BETA_BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    log_density = (mean * total - 1) * np.log(middle) + ((1 - mean) * total - 1) * np.log1p(-middle)
    summed = np.concatenate([[0.0], np.cumsum(np.exp(log_density - log_density.max()))])
    return np.interp(probability, summed / summed[-1], edges)


def _measured_answer_lengths(outputs: SyntheticOutputs, samples: int, cap: int) -> IntArray:
    """Return sorted answer lengths, shape (samples,): measured quantiles, scaled to the stated mean.

    ConfigurationError is raised if no scale gives that mean.
    """
    at_cap = round(outputs.cap_frac * samples)
    measured = _measured_answers()
    body = measured[(np.arange(samples - at_cap) * 2 + 1) * len(measured) // (2 * max(samples - at_cap, 1))]
    body_tokens = outputs.mean_tokens * samples - cap * at_cap
    lowest, highest = float(len(body)), float(cap * len(body))
    if not lowest <= body_tokens <= highest:
        raise ConfigurationError(
            f"load.dataset.outputs: a mean of {outputs.mean_tokens:g} tokens cannot come from "
            f"answers of 1 to {cap} tokens with {at_cap} of {samples} at the cap; change one of them."
        )
    low, high = 0.0, float(cap)
    for _ in range(60):
        scale = (low + high) / 2
        if np.clip(body * scale, 1, cap).sum() < body_tokens:
            low = scale
        else:
            high = scale
    scaled = np.rint(np.clip(body * high, 1, cap)).astype(np.int64)
    return np.concatenate([scaled, np.full(at_cap, cap, np.int64)])


def _paired_lengths(dataset: Dataset) -> tuple[IntArray, IntArray]:
    """Return the prompts of the benchmark by length, each with its answer, shape (samples,) both.

    The answer is that of `dataset.outputs` which has the rank of the sample's reference answer among all:
    short prompts have the longer answers, and how much KV cache a worker holds depends on the pairs.
    """
    prompts, references = _measured_pairs()
    samples = dataset.samples
    row = (np.arange(samples) * 2 + 1) * len(prompts) // (2 * samples)
    rank = np.empty(samples, np.int64)
    rank[np.argsort(references[row], kind="stable")] = np.arange(samples)
    return prompts[row], answer_lengths(dataset)[rank]


@lru_cache(maxsize=1)
def _measured_pairs() -> tuple[IntArray, IntArray]:
    """Return prompts and reference answers of the benchmark's samples by length of prompt, shape (8313,).

    Source: tune/workload/data/README.md.
    """
    text = files("tune.workload").joinpath("data", "llama3_1_405b_lengths.csv").read_text("utf-8")
    pairs = np.array(sorted(tuple(map(int, line.split(","))) for line in text.split()[1:]), np.int64)
    return pairs[:, 0], pairs[:, 1]


@lru_cache(maxsize=1)
def _measured_answers() -> FloatArray:
    """Return sorted output lengths of 302 samples of the benchmark in many runs, shape (302 x 100,).

    The smallest, median and largest answer of n runs of a sample are known. They are placed at probabilities
    1/(n+1), 1/2 and n/(n+1), the expected ranks of order statistics, and interpolated linearly. Medians alone
    have too few long answers.

    Source: tune/workload/data/README.md.
    """
    text = files("tune.workload").joinpath("data/llama3_1_405b_output_lengths.csv").read_text()
    probability = (np.arange(_DRAWS_PER_SAMPLE) + 0.5) / _DRAWS_PER_SAMPLE
    answers = []
    for row in csv.DictReader(text.splitlines()):
        runs = int(row["runs"])
        known = [float(row[f"{name}_output_tokens"]) for name in ("min", "median", "max")]
        answers.append(np.interp(probability, [1 / (runs + 1), 0.5, runs / (runs + 1)], known))
    return np.sort(np.concatenate(answers))
