"""How long the prompts and the answers of the dataset are, and in which order they are asked."""

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
from tune.workload.mlperf_pickle import read_pickle_lengths

_COLUMNS = ("input_tokens", "output_tokens")
_BETA_BINS = 1 << 14
_DRAWS_PER_SAMPLE = 100


def draw_lengths(
    dataset: Dataset,
    queries: int,
    concatenate_permutation: bool,
    shuffle_seed: int,
    *,
    stratified: bool = False,
) -> tuple[IntArray, IntArray]:
    """Prompt and answer tokens of every query, in the order they are asked: two int64 arrays of (queries,).

    The dataset is the same whatever the seed; `shuffle_seed` decides which prompt goes with which answer
    (unless a file says so) and the order. Queries walk through one random permutation of the samples after
    another; with `concatenate_permutation` they make whole passes, as LoadGen's setting of that name does.
    `stratified` (of a Load that is a sample): what is no whole pass is a fair sample of the dataset, one of
    each stratum of lengths, in random order.
    Raises ConfigurationError for a distribution that cannot exist or a bad file, ValueError for a partial pass.
    """
    if concatenate_permutation and queries % dataset.samples:
        raise ValueError(
            f"{queries} queries are no whole number of passes over {dataset.samples} samples; "
            "take Load.expected_queries, or turn concatenate_permutation off for a short probe"
        )
    inputs, outputs, order = _drawn(dataset, queries, shuffle_seed, stratified)
    return inputs[order], outputs[order]


def draw_rows(dataset: Dataset, queries: int, shuffle_seed: int, *, stratified: bool = False) -> IntArray:
    """The row of the dataset's file that each query asks, int64 of shape (queries,); draw_lengths agrees."""
    return _drawn(dataset, queries, shuffle_seed, stratified)[2]


def _drawn(
    dataset: Dataset, queries: int, shuffle_seed: int, stratified: bool
) -> tuple[IntArray, IntArray, IntArray]:
    """Prompt and answer tokens of the samples, (samples,) each, and which sample each query asks, (queries,).

    RandomState's streams are frozen between NumPy releases, Generator's are not.
    """
    draws = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(shuffle_seed)))
    samples, rest = dataset.samples, queries % dataset.samples
    if dataset.path is None:
        inputs, outputs = (draws.permutation(lengths) for lengths in _synthetic(dataset))
    passes = [draws.permutation(samples) for _ in range(-(-queries // samples))]
    if dataset.path is not None:
        inputs, outputs = _recorded(Path(dataset.path), dataset, draws)
    if stratified and rest:
        passes[-1] = _one_a_stratum(draws, inputs, outputs, rest)
    return inputs, outputs, np.concatenate(passes)[:queries]


def _recorded(path: Path, dataset: Dataset, draws: np.random.RandomState) -> tuple[IntArray, IntArray]:
    """Lengths of the file at `path`, one a sample; answers that a pickle does not state are drawn."""
    if not dataset.holds_prompts:
        return read_lengths(path, dataset)
    inputs, outputs = read_pickle_lengths(dataset)
    if outputs is None:
        outputs = draws.permutation(
            _answer_lengths(dataset.outputs, dataset.samples, dataset.longest_answer_tokens)
        )
    return inputs, outputs


def _one_a_stratum(draws: np.random.RandomState, inputs: IntArray, outputs: IntArray, count: int) -> IntArray:
    """`count` of the samples in random order, one of each of as many strata of equal size, (count,).

    The samples are put in a row: about sqrt(count) groups by prompt, each sorted by answer, up and down in
    turn. The row is cut into `count` pieces, which differ little within in either length.
    """
    samples, most = len(inputs), int(outputs.max()) + 1
    rank = np.empty(samples, np.int64)
    rank[_sorting(inputs)] = np.arange(samples)
    group = rank * math.isqrt(count) // samples
    row = _sorting(group * most + np.where(group % 2, most - outputs, outputs))
    edges = np.arange(count + 1) * samples // count
    picked = edges[:-1] + (draws.random_sample(count) * np.diff(edges)).astype(np.int64)
    return draws.permutation(row[picked])


def _sorting(keys: IntArray) -> IntArray:
    """What sorts `keys`, (n,), equal ones in their order: a third of the time of a stable sort."""
    return np.argsort(keys * len(keys) + np.arange(len(keys)))


def read_lengths(path: Path, dataset: Dataset) -> tuple[IntArray, IntArray]:
    """The columns input_tokens and output_tokens of a CSV, one row a sample: two int64 arrays.

    Raises ConfigurationError when the file is missing or unreadable, lacks a column, holds anything but whole numbers
    from 1 to the dataset's longest prompt and answer, or has another number of rows than `dataset.samples`.
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
    digits = (text or "").strip()
    if not digits.isdecimal() or len(digits) > 12 or not 1 <= int(digits) <= limit:
        raise ConfigurationError(
            f"{path}, line {line}: {column} is {text!r}; expected a whole number from 1 to {limit} "
            "(load.dataset.longest_prompt_tokens and longest_answer_tokens). Correct the row or the limit."
        )
    return int(digits)


@lru_cache(maxsize=8)
def _synthetic(dataset: Dataset) -> tuple[IntArray, IntArray]:
    """Sorted prompt and answer lengths of the samples: equal-probability quantiles, so no draw is lucky."""
    probability = (np.arange(dataset.samples) + 0.5) / dataset.samples
    drawn = _input_quantiles(dataset.inputs, probability)
    inputs = np.rint(np.clip(drawn, dataset.inputs.min_tokens, dataset.inputs.max_tokens)).astype(np.int64)
    outputs = _answer_lengths(dataset.outputs, dataset.samples, dataset.longest_answer_tokens)
    return inputs, outputs


def _input_quantiles(inputs: SyntheticInputs, probability: FloatArray) -> FloatArray:
    """Prompt lengths at `probability`, shape as given. Raises ConfigurationError where mean, sd and range clash."""
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
        widest = ((mean - low) * (high - mean)) ** 0.5
        raise ConfigurationError(
            f"load.dataset.inputs: no beta distribution on {low}..{high} with mean {mean:g} has a standard "
            f"deviation of {sd:g}; set sd_tokens below {widest:.0f}."
        )
    return low + (high - low) * _beta_quantiles((mean - low) / (high - low), sd / (high - low), probability)


def _beta_quantiles(mean: float, sd: float, probability: FloatArray) -> FloatArray:
    """Quantiles of the beta distribution on 0..1 of this mean and standard deviation: its summed density.

    Source: method of moments, a = m t and b = (1 - m) t with t = m (1 - m) / sd^2 - 1.
    """
    total = mean * (1 - mean) / sd**2 - 1
    edges = np.linspace(0.0, 1.0, _BETA_BINS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    log_density = (mean * total - 1) * np.log(middle) + ((1 - mean) * total - 1) * np.log1p(-middle)
    summed = np.concatenate([[0.0], np.cumsum(np.exp(log_density - log_density.max()))])
    return np.interp(probability, summed / summed[-1], edges)


def _answer_lengths(outputs: SyntheticOutputs, samples: int, cap: int) -> IntArray:
    """Sorted answer lengths, shape (samples,): quantiles of the measured, scaled until the mean of all fits.

    Raises ConfigurationError when no scale gives that mean.
    """
    at_cap = round(outputs.cap_frac * samples)
    measured = _measured_answers()
    body = measured[(np.arange(samples - at_cap) * 2 + 1) * len(measured) // (2 * max(samples - at_cap, 1))]
    wanted = outputs.mean_tokens * samples - cap * at_cap
    least, most = float(len(body)), float(cap * len(body))
    if not least <= wanted <= most:
        raise ConfigurationError(
            f"load.dataset.outputs: a mean of {outputs.mean_tokens:g} tokens cannot come from "
            f"answers of 1 to {cap} tokens with {at_cap} of {samples} at the cap; change one of them."
        )
    low, high = 0.0, float(cap)
    for _ in range(60):
        scale = (low + high) / 2
        if np.clip(body * scale, 1, cap).sum() < wanted:
            low = scale
        else:
            high = scale
    scaled = np.rint(np.clip(body * high, 1, cap)).astype(np.int64)
    return np.concatenate([scaled, np.full(at_cap, cap, np.int64)])


@lru_cache(maxsize=1)
def _measured_answers() -> FloatArray:
    """Sorted output lengths of 302 samples of the benchmark in many runs, shape (302 x 100,).

    Of n runs of a sample its smallest, median and largest answer are known: they stand at probabilities
    1/(n+1), 1/2 and n/(n+1), the expected ranks of order statistics, straight lines between them. Medians
    alone have too few long answers. Source: tune/workload/data/README.md.
    """
    text = files("tune.workload").joinpath("data/llama3_1_405b_output_lengths.csv").read_text()
    probability = (np.arange(_DRAWS_PER_SAMPLE) + 0.5) / _DRAWS_PER_SAMPLE
    answers = []
    for row in csv.DictReader(text.splitlines()):
        runs = int(row["runs"])
        known = [float(row[f"{name}_output_tokens"]) for name in ("min", "median", "max")]
        answers.append(np.interp(probability, [1 / (runs + 1), 0.5, runs / (runs + 1)], known))
    return np.sort(np.concatenate(answers))
