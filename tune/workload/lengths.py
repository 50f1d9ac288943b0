"""Draw the prompt and answer lengths of the dataset, and the order in which a run requests them."""

from __future__ import annotations

import csv
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from statistics import NormalDist

import numpy as np

from tune.core.arrays import FloatArray, IntArray
from tune.errors import ConfigurationError
from tune.spec.load import Dataset, SyntheticInputs, SyntheticOutputs

_COLUMNS = ("input_tokens", "output_tokens")
"""Columns of a CSV of lengths."""

_BETA_BINS = 1 << 14
"""Number of bins over which the density of a beta distribution is summed."""

_DRAWS_PER_SAMPLE = 100
"""Number of quantiles drawn from the measured answers of each sample."""

_MAX_DIGITS = 12
"""Largest number of digits of a length in a CSV."""


def draw_lengths(
    dataset: Dataset,
    queries: int,
    concatenate_permutation: bool,
    shuffle_seed: int,
    *,
    stratified: bool = False,
) -> tuple[IntArray, IntArray]:
    """Draw the prompt and answer tokens of every query, in order of arrival.

    Parameters
    ----------
    dataset
        Distributions or file that the lengths come from; it does not depend on the seed.
    queries
        Number of queries. They walk through one random permutation of the samples after another.
    concatenate_permutation
        Whether queries must make whole passes over the samples, as LoadGen's setting of that name demands.
    shuffle_seed
        Decides the order, and which prompt goes with which answer unless a file pairs them.
    stratified
        Whether queries beyond whole passes are a stratified sample of the dataset, one of each stratum of
        lengths, in random order. Set for a short run.

    Returns
    -------
    tuple[IntArray, IntArray]
        Prompt and answer tokens, int64, shape (queries,) each.

    Raises
    ------
    ConfigurationError
        If a distribution cannot exist or a file is wrong.
    ValueError
        If whole passes are demanded and `queries` is none.
    """
    if concatenate_permutation and queries % dataset.samples:
        raise ValueError(
            f"{queries} queries are no whole number of passes over {dataset.samples} samples; "
            "take Load.expected_queries, or turn concatenate_permutation off for a short probe"
        )
    inputs, outputs, order = _drawn(dataset, queries, shuffle_seed, stratified)
    return inputs[order], outputs[order]


def draw_rows(dataset: Dataset, queries: int, shuffle_seed: int, *, stratified: bool = False) -> IntArray:
    """Draw the row of the dataset's file that each query requests, in agreement with `draw_lengths`.

    Parameters
    ----------
    dataset
        Dataset with a file.
    queries
        Number of queries.
    shuffle_seed
        Decides the order.
    stratified
        As for `draw_lengths`.

    Returns
    -------
    IntArray
        Rows, int64, shape (queries,).

    Raises
    ------
    ConfigurationError
        If the file is wrong.
    """
    return _drawn(dataset, queries, shuffle_seed, stratified)[2]


def _drawn(
    dataset: Dataset, queries: int, shuffle_seed: int, stratified: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """Draw prompt and answer tokens of the samples (samples,), and the sample of each query (queries,).

    RandomState is used because its streams are frozen between NumPy releases; those of Generator are not.
    """
    draws = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(shuffle_seed)))
    samples, rest = dataset.samples, queries % dataset.samples
    if dataset.path is None:
        inputs, outputs = (draws.permutation(lengths) for lengths in _synthetic(dataset))
    passes = [draws.permutation(samples) for _ in range(-(-queries // samples))]
    if dataset.path is not None:
        inputs, outputs = _recorded(Path(dataset.path), dataset, draws)
    if stratified and rest:
        passes[-1] = _draw_strata(draws, inputs, outputs, rest)
    return inputs, outputs, np.concatenate(passes)[:queries]


def _recorded(path: Path, dataset: Dataset, draws: np.random.RandomState) -> tuple[IntArray, IntArray]:
    """Read the lengths in the file at `path`, one a sample; answers that a pickle lacks are drawn."""
    if not dataset.holds_prompts:
        return read_lengths(path, dataset)
    from tune.workload.mlperf_pickle import read_pickle_lengths  # noqa: PLC0415  (pandas takes 0.3 s)

    inputs, outputs = read_pickle_lengths(dataset)
    if outputs is None:
        outputs = draws.permutation(
            _answer_lengths(dataset.outputs, dataset.samples, dataset.longest_answer_tokens)
        )
    return inputs, outputs


def _draw_strata(draws: np.random.RandomState, inputs: IntArray, outputs: IntArray, count: int) -> IntArray:
    """Draw `count` samples, one of each of `count` strata of equal size, in random order, shape (count,).

    The samples are put in a row: about sqrt(count) groups by prompt, each sorted by answer, ascending and
    descending in turn. The row is cut into `count` strata, within which both lengths differ little.
    """
    samples, above_longest = len(inputs), int(outputs.max()) + 1
    rank = np.empty(samples, np.int64)
    rank[_argsort(inputs)] = np.arange(samples)
    group = rank * math.isqrt(count) // samples
    row = _argsort(group * above_longest + np.where(group % 2, above_longest - outputs, outputs))
    edges = np.arange(count + 1) * samples // count
    positions = edges[:-1] + (draws.random_sample(count) * np.diff(edges)).astype(np.int64)
    return draws.permutation(row[positions])


def _argsort(keys: IntArray) -> IntArray:
    """Return the stable sorting order of integer `keys` (n,) in a third of a stable sort's time."""
    return np.argsort(keys * len(keys) + np.arange(len(keys)))


def read_lengths(path: Path, dataset: Dataset) -> tuple[IntArray, IntArray]:
    """Read the columns input_tokens and output_tokens of a CSV, one row a sample: two int64 arrays.

    ConfigurationError is raised if the file is missing or unreadable, lacks a column, holds anything but
    whole numbers from 1 to the dataset's longest prompt and answer, or does not have `dataset.samples` rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ConfigurationError(
                    f"{path}: no column {' or '.join(missing)} in its header {reader.fieldnames or 'line'}; "
                    "load.dataset.path needs a CSV with the header input_tokens,output_tokens."
                )
            longest = (dataset.longest_prompt_tokens, dataset.longest_answer_tokens)
            rows = [
                [
                    _whole(path, reader.line_num, name, row[name], limit)
                    for name, limit in zip(_COLUMNS, longest, strict=True)
                ]
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            f"load.dataset.path={path}: cannot be read ({error}); expected a CSV with the columns "
            "input_tokens,output_tokens. Give an existing file, or null for the synthetic dataset."
        ) from error
    if len(rows) != dataset.samples:
        raise ConfigurationError(
            f"{path}: {len(rows)} rows, but load.dataset.samples is {dataset.samples}; "
            f"set load.dataset.samples={len(rows)} or give the CSV one row a sample."
        )
    table = np.array(rows, np.int64)
    return table[:, 0], table[:, 1]


def _whole(path: Path, line: int, column: str, text: str | None, limit: int) -> int:
    """Return a cell as a whole number from 1 to `limit`; raise ConfigurationError for anything else."""
    digits = (text or "").strip()
    if not digits.isdecimal() or len(digits) > _MAX_DIGITS or not 1 <= int(digits) <= limit:
        raise ConfigurationError(
            f"{path}, line {line}: {column} is {text!r}; expected a whole number from 1 to {limit} "
            "(load.dataset.longest_prompt_tokens and longest_answer_tokens). Correct the row or the limit."
        )
    return int(digits)


@lru_cache(maxsize=8)
def _synthetic(dataset: Dataset) -> tuple[IntArray, IntArray]:
    """Return sorted prompt and answer lengths of the samples: quantiles of equal probability, not draws."""
    probability = (np.arange(dataset.samples) + 0.5) / dataset.samples
    quantiles = _input_quantiles(dataset.inputs, probability)
    inputs = np.rint(np.clip(quantiles, dataset.inputs.min_tokens, dataset.inputs.max_tokens)).astype(
        np.int64
    )
    outputs = _answer_lengths(dataset.outputs, dataset.samples, dataset.longest_answer_tokens)
    return inputs, outputs


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


def _answer_lengths(outputs: SyntheticOutputs, samples: int, cap: int) -> IntArray:
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
