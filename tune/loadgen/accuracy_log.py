"""Read LoadGen's accuracy log: the token ids with which a deployment answered each sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tune.core.arrays import IntArray
from tune.errors import ResumableError

ACCURACY_LOG = "mlperf_log_accuracy.json"
TOKEN_DTYPE = np.dtype("<i4")
"""Type of a token id in the log. Source: MLPerf Inference, language/llama3.1-405b/SUT_VLLM.py."""


class LoggedAnswer(NamedTuple):
    """Hold the answer to one sample: its token ids, shape (tokens,), and the tokens that were reported."""

    sample: int
    ids: IntArray
    reported_tokens: int


def read_answers(folder: Path) -> tuple[LoggedAnswer, ...]:
    """Return the first answer to each sample in the accuracy log of `folder`, in the order of the log.

    Raises ResumableError where the log is missing or torn.
    """
    path = folder / ACCURACY_LOG
    try:
        answers = tuple(_distinct(json.loads(path.read_bytes())))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumableError(
            f"{path}: not read ({type(error).__name__}: {error}); expected LoadGen's accuracy log. Run the "
            "trial again."
        ) from error
    return answers


def _distinct(entries: list[dict[str, Any]]) -> Iterator[LoggedAnswer]:
    """Yield the first entry of each sample, as the benchmark's own evaluation reads the log."""
    seen: set[int] = set()
    for entry in entries:
        sample = int(entry["qsl_idx"])
        if sample not in seen:
            seen.add(sample)
            ids = np.frombuffer(bytes.fromhex(entry["data"]), TOKEN_DTYPE).astype(np.int64)
            yield LoggedAnswer(sample, ids, int(entry.get("token_count", len(ids))))
