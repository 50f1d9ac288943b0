"""Translate between the text of an answer and its token ids with the model's own tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer


class AnswerTokenizer:
    """Encode and decode answers with the file tokenizer.json of a checkpoint.

    Endpoints stream text. LoadGen's accuracy log holds token ids, from which the benchmark's evaluation
    decodes the text again, without special tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, without those that begin or end a sequence."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode_all(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each answer, without special tokens."""
        texts: list[str] = self._tokenizer.decode_batch(answers, skip_special_tokens=True)
        return texts


def load_tokenizer(path: str) -> AnswerTokenizer:
    """Return the tokenizer in the file `path`.

    Raises ConfigurationError where the package `tokenizers` is not installed, or the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (an optional package)
    except ImportError as error:
        raise ConfigurationError(
            f"load.accuracy needs the package tokenizers, which is not installed ({error}). Install tune "
            "with its extra 'accuracy' for the Python of the load client, or leave load.accuracy false."
        ) from error
    try:
        return AnswerTokenizer(Tokenizer.from_file(path))
    except Exception as error:  # the package raises Exception itself
        raise ConfigurationError(
            f"{path}: no tokenizer was read ({error}); expected the tokenizer.json of the model where the "
            "load client runs. Give cluster.tokenizer=FILE."
        ) from error
