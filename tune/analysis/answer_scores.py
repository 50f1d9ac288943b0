"""Compare answers with reference answers by the metrics of the benchmark's Llama-3.1-405B dataset.

Source: MLPerf Inference, language/llama3.1-405b/evaluate-accuracy.py. Its split into sentences is left out:
that changes white space between words alone, of which ROUGE-L knows nothing.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tune.errors import ConfigurationError
from tune.workload.mlperf_pickle import ReferenceAnswer

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_UUID = re.compile(r"\w{8}-\w{4}-\w{4}-\w{4}-\w{12}")
_ANSWER_MARK = "Answer: "
_FEWEST_FOR_PROCESSES = 256
"""Answers that one process scores in less time than others take to start; some 0.1 s each. Chosen here."""

_CHUNK = 32


class Scores(NamedTuple):
    """Hold the mean scores in percent; None where no sample has the metric."""

    rouge_l: float | None
    exact_match: float | None


def require_scorer() -> None:
    """Raise ConfigurationError where the package that computes ROUGE is not installed."""
    try:
        _scorer()
    except ImportError as error:
        raise ConfigurationError(
            f"load.accuracy needs the package rouge-score, which is not installed ({error}). Install tune "
            "with its extra 'accuracy' for the Python of the load client, or leave load.accuracy false."
        ) from error


def mean_scores(answers: Sequence[str], references: Sequence[ReferenceAnswer], processes: int) -> Scores:
    """Return the mean of each metric over the samples that have it.

    Parameters
    ----------
    answers
        Text of each answer, without special tokens.
    references
        Reference answer and metric of the sample that each answers.
    processes
        Largest number of processes that score at a time.

    Returns
    -------
    Scores
        ROUGE-L (F measure, stemmed words), and exact match of both kinds together.
    """
    pairs = list(zip(answers, references, strict=True))
    if processes == 1 or len(pairs) < _FEWEST_FOR_PROCESSES:
        scores = list(map(_score, pairs))
    else:
        spawn = multiprocessing.get_context("spawn")  # this process has threads, which a fork would lose
        with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
            scores = list(pool.map(_score, pairs, chunksize=_CHUNK))
    rouge = [score for score, (_, text) in zip(scores, pairs, strict=True) if text.metric == "rouge"]
    exact = [score for score, (_, text) in zip(scores, pairs, strict=True) if text.metric != "rouge"]
    return Scores(_mean(rouge), _mean(exact))


def _mean(scores: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return sum(scores) / len(scores) if scores else None


def _score(pair: tuple[str, ReferenceAnswer]) -> float:
    """Return the score of one answer in percent, by the metric of its sample."""
    answer, reference = pair
    return _METRICS[reference.metric](reference.text.strip(), answer.strip())


def _rouge_l(reference: str, answer: str) -> float:
    """Return the F measure of the longest common subsequence of stemmed words, in percent."""
    return 100.0 * float(_scorer().score(reference, answer)["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _scorer() -> RougeScorer:
    """Return the scorer that the benchmark uses, loaded once: it takes seconds."""
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415  (an optional package)

    return RougeScorer(["rougeL"], use_stemmer=True)


def _needles_found(reference: str, answer: str) -> float:
    """Return the share of the UUIDs that are found, in percent, rounded to two digits.

    As in the benchmark, the n-th UUID of the answer is compared with the n-th of the reference: by the share
    of its characters that occur anywhere in the other, in upper or lower case.
    """
    wanted, found = _UUID.findall(reference), _UUID.findall(answer)
    if not found:
        return 0.0
    shares = [
        sum(character.lower() in uuid.lower() for character in needle) / len(needle)
        for uuid, needle in zip(found, wanted, strict=False)
    ]
    return round(sum(shares) / len(found) * 100, 2)


def _question_answered(reference: str, answer: str) -> float:
    """Return 100 where the answer after its last "Answer: " is right, else 0.

    It is right where it is a part of the reference, or holds one of the alternatives between the bars of the
    reference, without regard to white space and case.
    """
    said = answer.rpartition(_ANSWER_MARK)[2]
    if said in reference:
        return 100.0
    alternatives = map(_squeezed, reference.split("|"))
    return 100.0 * any(alternative in _squeezed(said) for alternative in alternatives)


def _squeezed(text: str) -> str:
    """Return `text` in lower case without white space."""
    return re.sub(r"\s+", "", text).lower()


_METRICS: Mapping[str, Callable[[str, str], float]] = {
    "rouge": _rouge_l,
    "niah_em": _needles_found,
    "qa_em": _question_answered,
}
"""Metric by its name in tune.workload.mlperf_pickle.METRICS: from reference and answer to percent."""
