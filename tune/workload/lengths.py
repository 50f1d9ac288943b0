"""Draw the prompt and answer lengths of the dataset, and the order in which a run requests them."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np

from tune.core.arrays import IntArray
from tune.spec.dataset import Dataset
from tune.spec.load import Load
from tune.workload.distributions import answer_lengths, synthetic_lengths
from tune.workload.length_files import find_lengths, read_lengths


def request_lengths(load: Load, queries: int) -> tuple[IntArray, IntArray]:
    """Return the prompt and answer tokens of the first `queries` requests of `load`, in order of arrival.

    A trace keeps the order of its rows. Every other load is drawn; arrays and errors as of `draw_lengths`.
    """
    if load.trace:
        inputs, outputs = read_lengths(find_lengths(str(load.dataset.path)), load.dataset, load.trace)
        row = np.arange(queries) % len(inputs)
        return inputs[row], outputs[row]
    return draw_lengths(
        load.dataset,
        queries,
        load.concatenate_permutation and not load.is_closed_loop,
        load.shuffle_seed,
        stratified=load.is_short_run or load.is_closed_loop,
    )


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
    drawn = _drawn if dataset.path else _drawn_before  # a file may change
    inputs, outputs, order = drawn(dataset, queries, shuffle_seed, stratified)
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
        inputs, outputs = synthetic_lengths(dataset)
        row = draws.permutation(samples)
        inputs, outputs = inputs[row], outputs[row if dataset.pairs_lengths else draws.permutation(samples)]
    passes = [draws.permutation(samples) for _ in range(-(-queries // samples))]
    if dataset.path is not None:
        inputs, outputs = _recorded(find_lengths(dataset.path), dataset, draws)
    if stratified and rest:
        passes[-1] = _draw_strata(draws, inputs, outputs, rest)
    return inputs, outputs, np.concatenate(passes)[:queries]


_drawn_before = lru_cache(maxsize=32)(_drawn)
"""Function that draws as `_drawn` does and keeps the result: a capacity search asks for it at many rates."""


def _recorded(path: Path, dataset: Dataset, draws: np.random.RandomState) -> tuple[IntArray, IntArray]:
    """Read the lengths in the file at `path`, one a sample; answers that a pickle lacks are drawn."""
    if not dataset.holds_prompts:
        return read_lengths(path, dataset)
    from tune.workload.mlperf_pickle import read_pickle_lengths  # noqa: PLC0415  (pandas takes 0.3 s)

    inputs, outputs = read_pickle_lengths(dataset)
    if outputs is None:
        outputs = draws.permutation(answer_lengths(dataset))
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
