"""Read the benchmark's dataset, a pickled DataFrame, with an unpickler that builds nothing else.

Columns: `tok_input` (token ids), `tok_input_len`, `input` (text), and where the file has it
`tok_ref_output_len` (tokens of a reference answer). An accuracy run needs `gt_output` (the reference answer)
and `metric` (what compares an answer with it).

Source: MLPerf Inference, language/llama3.1-405b/dataset.py and evaluate-accuracy.py; `tok_ref_output_len` as
in the files of its sister benchmarks.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tune.core.arrays import IntArray
from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset

_ALLOWED = {
    "builtins": {"slice"},
    "numpy": {"dtype"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.numeric": {"_frombuffer"},
    "pandas": {"DataFrame", "Index", "RangeIndex", "StringDtype"},
    "pandas.arrays": {"StringArray"},
    "pandas._libs.arrays": {"__pyx_unpickle_NDArrayBacked"},
    "pandas._libs.internals": {"_unpickle_block"},
    "pandas.core.frame": {"DataFrame"},
    "pandas.core.indexes.base": {"Index", "_new_Index"},
    "pandas.core.indexes.range": {"RangeIndex"},
    "pandas.core.internals.managers": {"BlockManager"},
}
"""Parts of a DataFrame of lists, numbers and texts, by module; none of them runs code that it is given."""

_RENAMED = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"): ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"): ("numpy._core.numeric", "_frombuffer"),
    ("pandas.core.indexes.numeric", "Int64Index"): ("pandas", "Index"),
}
"""Names of NumPy 1 and pandas 1, and their names today."""

METRICS = ("rouge", "niah_em", "qa_em")
"""Names of the metrics in the column `metric`. Source: MLPerf Inference, evaluate-accuracy.py."""


class ReferenceAnswer(NamedTuple):
    """Hold the reference answer of a sample, and the name of the metric in METRICS that compares with it."""

    text: str
    metric: str


class _Array(np.ndarray):
    """Check the shape of an unpickled array against its items.

    Where a list is too short, NumPy reads beyond its end and the process dies.
    """

    def __setstate__(self, state: Any) -> None:
        """Take the state of a pickled array; raise UnpicklingError if items and shape differ."""
        _, shape, _, _, items = state
        if min(shape, default=0) < 0 or (isinstance(items, list) and len(items) != math.prod(shape)):
            raise pickle.UnpicklingError(f"it has {len(items)} items for an array of shape {shape}")
        super().__setstate__(state)


class _FrameUnpickler(pickle.Unpickler):
    """Unpickle a DataFrame and refuse everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class or function; raise UnpicklingError for any other."""
        module, name = _RENAMED.get((module, name), (module, name))
        if (module, name) == ("numpy", "ndarray"):
            return _Array
        if name not in _ALLOWED.get(module, ()):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no DataFrame of prompts needs")
        return super().find_class(module, name)


def read_pickle_lengths(dataset: Dataset) -> tuple[IntArray, IntArray | None]:
    """Read prompt and answer tokens of every sample of the pickle at `dataset.path`, int64, (samples,).

    The answers are None if the file has none. ConfigurationError is raised as by `read_pickle_ids`, and for a
    length outside 1 to the dataset's longest prompt and answer.
    """
    frame_path = Path(str(dataset.path))
    inputs, outputs = _lengths(dataset)
    _check_range(frame_path, "tok_input_len", inputs, dataset.longest_prompt_tokens)
    if outputs is not None:
        _check_range(frame_path, "tok_ref_output_len", outputs, dataset.longest_answer_tokens)
    return inputs, outputs


def read_pickle_ids(dataset: Dataset) -> list[list[int]]:
    """Read the token ids of every prompt of the pickle at `dataset.path`, in the order of its rows.

    ConfigurationError is raised if the file is missing, does not match `dataset.sha256`, names anything but
    parts of a DataFrame, lacks the column, or does not have `dataset.samples` rows.
    """
    prompts = [np.asarray(ids) for ids in _read(dataset, "tok_input")["tok_input"]]
    for row, ids in enumerate(prompts):
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or (ids < 0).any():
            raise ConfigurationError(
                f"load.dataset.path={dataset.path}, row {row}: tok_input holds {str(ids)[:60]!r}; "
                "expected a list of token ids. Get the file again."
            )
    return [ids.tolist() for ids in prompts]


def read_pickle_texts(dataset: Dataset) -> list[str]:
    """Read the text of every prompt of the pickle at `dataset.path`; errors as in `read_pickle_ids`."""
    return [str(text) for text in _read(dataset, "input")["input"]]


def read_pickle_references(dataset: Dataset) -> list[ReferenceAnswer]:
    """Read the reference answer of every sample of the pickle at `dataset.path`, in the order of its rows.

    ConfigurationError is raised as by `read_pickle_ids`, and for a metric that is not in METRICS.
    """
    frame = _read(dataset, "gt_output", "metric")
    unknown = sorted(set(map(str, frame["metric"])) - set(METRICS))
    if unknown:
        raise ConfigurationError(
            f"load.dataset.path={dataset.path}: metric holds {', '.join(unknown)}; expected "
            f"{', '.join(METRICS)}, the metrics of Llama-3.1-405B's dataset."
        )
    return [
        ReferenceAnswer(str(text), str(metric))
        for text, metric in zip(frame["gt_output"], frame["metric"], strict=True)
    ]


@lru_cache(maxsize=2)
def _lengths(dataset: Dataset) -> tuple[IntArray, IntArray | None]:
    """Read prompt and answer lengths; cached, as reading takes seconds and every trial needs them."""
    frame = _read(dataset, "tok_input_len")
    path = Path(str(dataset.path))
    inputs = _whole(path, frame, "tok_input_len")
    if "tok_input" in frame and [len(ids) for ids in frame["tok_input"]] != inputs.tolist():
        raise ConfigurationError(f"{path}: tok_input_len is not the length of tok_input. Get the file again.")
    return inputs, _whole(path, frame, "tok_ref_output_len") if "tok_ref_output_len" in frame else None


def _whole(path: Path, frame: pd.DataFrame, column: str) -> IntArray:
    """Return a column as int64; raise ConfigurationError if it holds no whole numbers."""
    values = frame[column].to_numpy()
    if values.dtype.kind not in "iu":
        raise ConfigurationError(
            f"{path}: {column} has the type {values.dtype}; expected whole numbers of tokens."
        )
    return np.asarray(values, np.int64)


def _check_range(path: Path, column: str, tokens: IntArray, longest: int) -> None:
    """Raise ConfigurationError if a length lies outside 1 to `longest`."""
    wrong = np.flatnonzero((tokens < 1) | (tokens > longest))
    if len(wrong):
        raise ConfigurationError(
            f"{path}, row {wrong[0]}: {column} is {tokens[wrong[0]]}, {len(wrong)} row(s) are wrong; "
            f"expected 1 to {longest} (load.dataset.longest_prompt_tokens, longest_answer_tokens). "
            "Correct the limit."
        )


def _read(dataset: Dataset, *columns: str) -> pd.DataFrame:
    """Read the DataFrame, which must have `columns` and one row a sample; raise ConfigurationError if not."""
    path = Path(str(dataset.path))
    content = _content(path, dataset.sha256)
    try:
        frame = _FrameUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a broken pickle may raise anything
        raise ConfigurationError(
            f"load.dataset.path={path}: not read ({type(error).__name__}: {error}); expected the benchmark's "
            "pickled DataFrame of prompts. No code in the file was executed."
        ) from error
    if not isinstance(frame, pd.DataFrame) or any(column not in frame for column in columns):
        found = (
            f"columns {', '.join(map(str, frame))}"
            if isinstance(frame, pd.DataFrame)
            else type(frame).__name__
        )
        raise ConfigurationError(
            f"load.dataset.path={path}: found {found}; expected a DataFrame with {' and '.join(columns)}."
        )
    if len(frame) != dataset.samples:
        raise ConfigurationError(
            f"{path}: {len(frame)} rows, but load.dataset.samples is {dataset.samples}; "
            f"set load.dataset.samples={len(frame)} or give the whole file."
        )
    return frame


def _content(path: Path, sha256: str | None) -> bytes:
    """Read a file and check its SHA-256; raise ConfigurationError if it is missing or another one."""
    if sha256 is None:
        raise ConfigurationError(
            f"load.dataset.path={path}: a pickle is read only with load.dataset.sha256, its SHA-256; "
            "render the plan again, or state it."
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"load.dataset.path={path}: cannot be read ({error.strerror}); expected the benchmark's pickle. "
            "It must lie under the same path where the client runs."
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigurationError(
            f"load.dataset.path={path}: has SHA-256 {found}, load.dataset.sha256 is {sha256}: not the file "
            "of this trial. Restore it, or compose the trial again."
        )
    return content
