"""Make a small dataset with reference answers, and a tokenizer with one token for each byte."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

LETTERS = 650
"""Letters, and so tokens, of every reference answer: within the benchmark's range of tokens a sample."""

METRICS = ("rouge", "qa_em", "niah_em")
_WORDS = ("harbour", "running", "stones", "quickly", "meadow", "seven", "lanterns", "bridges")


@dataclass(frozen=True)
class AccuracyFiles:
    """Hold the paths of a dataset and of a tokenizer, and the reference answers by row."""

    dataset: Path
    tokenizer: Path
    references: tuple[str, ...]

    @property
    def changes(self) -> dict[str, Any]:
        """Return the changes that make the dataset that of `support.right_client.RIGHT`."""
        return {
            "load__dataset__path": str(self.dataset),
            "load__dataset__sha256": hashlib.sha256(self.dataset.read_bytes()).hexdigest(),
            "load__dataset__samples": len(self.references),
            "load__dataset__longest_answer_tokens": 2000,
            "max_seq_len": 4096,
        }

    def row_of(self, prompt: list[int]) -> int:
        """Return the row whose prompt this is."""
        return prompt[0]


def write_accuracy_files(folder: Path, samples: int = 24) -> AccuracyFiles:
    """Write dataset.pkl and tokenizer.json into `folder`; each row has the next metric in turn."""
    references = tuple(_reference(row) for row in range(samples))
    frame = pd.DataFrame(
        {
            "input": [f"Question {row}?" for row in range(samples)],
            "tok_input": [[row, 5, 6] for row in range(samples)],
            "tok_input_len": [3] * samples,
            "gt_output": references,
            "metric": [METRICS[row % len(METRICS)] for row in range(samples)],
        }
    )
    frame.to_pickle(folder / "dataset.pkl")
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.save(str(folder / "tokenizer.json"))
    return AccuracyFiles(folder / "dataset.pkl", folder / "tokenizer.json", references)


def _reference(row: int) -> str:
    """Return the reference answer of a row, in LETTERS letters."""
    words = " ".join(_WORDS[(row + position) % len(_WORDS)] for position in range(120))
    if METRICS[row % len(METRICS)] == "niah_em":
        words = f"The key is {row:08d}-aaaa-bbbb-cccc-{row:012d}. {words}"
    return f"Sample {row}: {words}"[: LETTERS - 1] + "."
