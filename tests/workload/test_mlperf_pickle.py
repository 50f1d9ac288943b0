"""Test the reader of the benchmark's pickled dataset, with files of several pandas versions and bad ones."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.composed import composed

from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset
from tune.workload.lengths import draw_lengths, draw_rows
from tune.workload.mlperf_pickle import read_pickle_ids, read_pickle_lengths, read_pickle_texts

ROWS = [
    {"input": "a é", "tok_input": [1, 2, 3], "tok_input_len": 3, "tok_ref_output_len": 7},
    {"input": 'b\n"', "tok_input": [4, 5], "tok_input_len": 2, "tok_ref_output_len": 2000},
    {"input": "c", "tok_input": [6], "tok_input_len": 1, "tok_ref_output_len": 1},
]


def dataset_of(path: Path, samples: int = len(ROWS), **changes: Any) -> Dataset:
    default = composed().load.dataset
    pinned = {"path": str(path), "sha256": sha256(path), "samples": samples}
    return default.model_copy(update=pinned | changes)


def sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def write_pickle(folder: Path, content: object) -> Path:
    path = folder / "dataset.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


def frame(**columns: Any) -> pd.DataFrame:
    """Return a valid DataFrame with columns replaced; None removes a column."""
    right = pd.DataFrame(ROWS).drop(columns=[name for name, values in columns.items() if values is None])
    return right.assign(**{name: values for name, values in columns.items() if values is not None})


@pytest.mark.parametrize(("name", "samples"), [("pandas_1.5.3.pkl", 7), ("pandas_2.2.3.pkl", 8)])
def test_files_of_older_pandas_are_read(root: Path, name: str, samples: int) -> None:
    dataset = dataset_of(root / "tests/data/dataset" / name, samples)
    inputs, outputs = read_pickle_lengths(dataset)
    ids, texts = read_pickle_ids(dataset), read_pickle_texts(dataset)
    kept = [row for row in range(8) if samples == 8 or row != 3]
    assert inputs.tolist() == [[4, 30, 10, 28, 16, 22, 14, 36][row] for row in kept]
    assert outputs is not None
    assert outputs.tolist() == [[6, 3, 22, 27, 29, 2, 13, 5][row] for row in kept]
    assert [len(prompt) for prompt in ids] == inputs.tolist()
    assert ids[0][:3] == [128000, 78615, 94508]
    assert texts == [f'Prompt {row}: é漢\n"quoted"' for row in kept]


@pytest.mark.slow
@pytest.mark.parametrize("as_ids", [list, tuple, np.array])
def test_files_of_the_installed_pandas_are_read(tmp_path: Path, as_ids: Callable[[list[int]], Any]) -> None:
    ids = pd.Series([as_ids([1, 2, 3]), as_ids([4, 5]), as_ids([6])], dtype=object)
    dataset = dataset_of(write_pickle(tmp_path, frame(tok_input=ids)))
    inputs, outputs = read_pickle_lengths(dataset)
    assert inputs.tolist() == [3, 2, 1]
    assert outputs is not None
    assert outputs.tolist() == [7, 2000, 1]
    assert read_pickle_ids(dataset) == [[1, 2, 3], [4, 5], [6]]
    assert read_pickle_texts(dataset) == ["a é", 'b\n"', "c"]


def test_every_pass_requests_every_row_with_its_own_lengths(tmp_path: Path) -> None:
    dataset = dataset_of(write_pickle(tmp_path, frame()))
    inputs, outputs = draw_lengths(dataset, 9, True, 5)
    order = draw_rows(dataset, 9, 5)
    assert [sorted(order[start : start + 3].tolist()) for start in (0, 3, 6)] == [[0, 1, 2]] * 3
    assert inputs.tolist() == [ROWS[row]["tok_input_len"] for row in order]
    assert outputs.tolist() == [ROWS[row]["tok_ref_output_len"] for row in order]
    assert [draw_rows(dataset, 90, seed).tolist() for seed in (5, 6)] != [
        draw_rows(dataset, 90, 5).tolist()
    ] * 2


def test_missing_answers_are_drawn_without_changing_the_order(tmp_path: Path) -> None:
    dataset = dataset_of(write_pickle(tmp_path, frame(tok_ref_output_len=None)))
    inputs, outputs = draw_lengths(dataset, 6, True, 5)
    assert inputs.tolist() == [ROWS[row]["tok_input_len"] for row in draw_rows(dataset, 6, 5)]
    assert outputs.mean() == pytest.approx(dataset.outputs.mean_tokens, rel=0.01)


@pytest.mark.parametrize("stated", [True, False])
def test_a_stratified_run_pairs_lengths_as_a_whole_run_does(tmp_path: Path, stated: bool) -> None:
    numbered = [
        {**ROWS[0], "tok_input": [1] * n, "tok_input_len": n, "tok_ref_output_len": n} for n in range(1, 41)
    ]
    rows = pd.DataFrame(numbered) if stated else pd.DataFrame(numbered).drop(columns="tok_ref_output_len")
    dataset = dataset_of(write_pickle(tmp_path, rows), samples=40)
    order = draw_rows(dataset, 8, 5, stratified=True)
    inputs, outputs = draw_lengths(dataset, 8, False, 5, stratified=True)
    assert inputs.tolist() == [1 + row for row in order]
    whole = dict(zip(*(tokens.tolist() for tokens in draw_lengths(dataset, 40, True, 5)), strict=True))
    assert outputs.tolist() == [whole[length] for length in inputs.tolist()]


class HarmfulObject:
    """Pickle as a call that leaves a file behind."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def as_a_column(harmful: HarmfulObject) -> pd.DataFrame:
    return frame(input=pd.Series([harmful] * len(ROWS), dtype=object))


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lambda harmful: harmful, lambda harmful: [harmful], as_a_column])
@pytest.mark.parametrize("call", [subprocess.run, eval, Path, getattr])
def test_no_call_in_a_pickle_is_executed(tmp_path: Path, wrap: Any, call: Callable[..., Any]) -> None:
    left = tmp_path / "left"
    argument = {subprocess.run: ["touch", str(left)], eval: f"open({str(left)!r}, 'w')"}.get(call, str(left))
    path = write_pickle(tmp_path, wrap(HarmfulObject(call, argument)))
    with pytest.raises(ConfigurationError, match=r"it names .*, which no DataFrame of prompts needs"):
        read_pickle_texts(dataset_of(path))
    assert not left.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "EOFError"),
        (b"input_tokens,output_tokens\n1,2\n", "not read"),
        (pickle.dumps(frame())[:-20], "not read"),
        ([1, 2], "found list"),
        ({"tok_input": [[1]]}, "found dict"),
        (frame(input=None), "found columns tok_input, tok_input_len, tok_ref_output_len; expected .* input"),
        (frame().iloc[:2], "2 rows, but load.dataset.samples is 3; set load.dataset.samples=2"),
    ],
)
def test_pickles_without_a_valid_frame_are_refused(tmp_path: Path, content: object, found: str) -> None:
    with pytest.raises(ConfigurationError, match=found):
        read_pickle_texts(dataset_of(write_pickle(tmp_path, content)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"tok_input_len": None}, "expected a DataFrame with tok_input_len"),
        ({"tok_input_len": [3, 2, 2]}, "tok_input_len is not the length of tok_input"),
        ({"tok_input_len": [3.0, 2.0, 1.0]}, "tok_input_len has the type float64"),
        ({"tok_input_len": ["3", "2", "1"]}, "tok_input_len has the type"),
        ({"tok_ref_output_len": [7, 2001, 0]}, "row 1: tok_ref_output_len is 2001, 2 row.s. are wrong"),
        ({"tok_ref_output_len": [7.5, 1, 1]}, "tok_ref_output_len has the type float64"),
        ({"tok_input": [[1] * 20_011, [1], [1]], "tok_input_len": [20_011, 1, 1]}, "row 0: .* 1 to 20010"),
    ],
)
def test_wrong_lengths_are_refused(tmp_path: Path, columns: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigurationError, match=found):
        read_pickle_lengths(dataset_of(write_pickle(tmp_path, frame(**columns))))


@pytest.mark.slow
@pytest.mark.parametrize("ids", [[1.5], ["a"], [-1], "text", 7, None, [[1, 2]]])
def test_invalid_token_ids_are_refused(tmp_path: Path, ids: object) -> None:
    column = pd.Series([[1, 2, 3], ids, [6]], dtype=object)
    with pytest.raises(ConfigurationError, match="row 1: tok_input holds"):
        read_pickle_ids(dataset_of(write_pickle(tmp_path, frame(tok_input=column))))


@pytest.mark.slow
def test_only_the_file_with_the_pinned_hash_is_read(tmp_path: Path) -> None:
    path = write_pickle(tmp_path, frame())
    with pytest.raises(ConfigurationError, match=r"a pickle is read only with load\.dataset\.sha256"):
        read_pickle_texts(dataset_of(path, sha256=None))
    with pytest.raises(ConfigurationError, match="not the file of this trial"):
        read_pickle_texts(dataset_of(path, sha256="0" * 64))
    with pytest.raises(ConfigurationError, match=r"cannot be read .*same path where the client runs"):
        read_pickle_texts(dataset_of(tmp_path / "elsewhere.pkl", sha256="0" * 64))


class ShortArray:
    """Pickle as an array that lacks an item."""

    def __reduce__(self) -> Any:
        rebuild, arguments, (*state, items) = np.array([[1], [2, 3], [4]], object).__reduce__()  # type: ignore[misc]
        return rebuild, arguments, (*state, items[:2])


def test_an_array_that_lacks_an_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"it has 2 items for an array of shape \(3,\)"):
        read_pickle_texts(dataset_of(write_pickle(tmp_path, ShortArray())))


@pytest.mark.slow
@given(st.binary(max_size=200), st.integers(0, 2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_noise_in_a_pickle_is_refused_or_harmless(tmp_path: Path, noise: bytes, at: int) -> None:
    right = pickle.dumps(frame())
    at = min(at, len(right))
    path = write_pickle(tmp_path, right[:at] + noise + right[at + len(noise) :])
    try:
        texts = read_pickle_texts(dataset_of(path))
    except ConfigurationError:
        return
    assert len(texts) == len(ROWS)


def test_composing_pins_the_hash_and_lengths_come_from_the_file(tmp_path: Path) -> None:
    path = write_pickle(tmp_path, frame())
    load = composed(f"load.dataset.path={path}", "load.dataset.samples=3").load
    assert load.dataset.sha256 == sha256(path)
    assert load.dataset.holds_prompts
    inputs, _ = draw_lengths(load.dataset, 3, True, 0)
    assert sorted(inputs.tolist()) == [1, 2, 3]
