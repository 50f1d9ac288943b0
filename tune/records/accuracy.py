"""Read and write `accuracy.json`: how a deployment's answers compare with the dataset's reference answers."""

from __future__ import annotations

from pathlib import Path

from tune.core.files import read_record, write_text
from tune.spec.base import FrozenModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

ACCURACY_FOLDER = "accuracy"
"""Folder of an accuracy run in the folder of its attempt."""

_FILE = "accuracy.json"


class Accuracy(FrozenModel):
    """Hold the figures of an accuracy run at `target_qps`, and the targets that it `missed`, in words.

    `rouge_l` and `exact_match` are means in percent over the samples with that metric, None without one.
    `tokens_per_sample` counts the ids in LoadGen's log, `reported_tokens_per_sample` the tokens that the
    engine reported; `tokens` and `characters` are totals of the log and of its text. `failed` answers count
    as empty.
    """

    target_qps: PositiveFloat
    samples: PositiveInt
    failed: NonNegativeInt
    rouge_l: NonNegativeFloat | None
    exact_match: NonNegativeFloat | None
    tokens_per_sample: NonNegativeFloat
    reported_tokens_per_sample: NonNegativeFloat
    tokens: NonNegativeInt
    characters: NonNegativeInt
    missed: tuple[str, ...]

    @property
    def result_line(self) -> str:
        """Return the figures as the benchmark's own evaluation prints them."""
        means = {"rougeL": self.rouge_l, "exact_match": self.exact_match}
        figures = {name: value for name, value in means.items() if value is not None} | {
            "gen_len": self.characters,
            "gen_num": self.samples,
            "gen_tok_len": self.tokens,
            "tokens_per_sample": round(self.tokens_per_sample, 1),
        }
        return str(figures)


def write_accuracy(folder: Path, record: Accuracy) -> None:
    """Write accuracy.json into `folder`."""
    write_text(folder / _FILE, record.model_dump_json(indent=1) + "\n")


def read_accuracy(attempt: Path) -> Accuracy | None:
    """Return the accuracy that an attempt measured, None without one; raise ResumableError if torn."""
    return read_record(attempt / ACCURACY_FOLDER / _FILE, Accuracy)
