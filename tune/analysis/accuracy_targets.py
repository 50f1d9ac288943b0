"""Compare a run with the accuracy that the benchmark demands of Llama-3.1-405B.

Sources: MLPerf Inference, language/llama3.1-405b/README.md (Accuracy Target); submission checker, constants
of llama3.1-405b.
"""

from __future__ import annotations

from collections.abc import Iterator

REFERENCE_ROUGE_L = 21.6666
REFERENCE_EXACT_MATCH = 90.1335
REFERENCE_TOKENS_PER_SAMPLE = 684.68
"""Results of the reference implementation in FP16: means in percent, and tokens."""

LEAST_ROUGE_L, LEAST_EXACT_MATCH = (
    0.99 * reference for reference in (REFERENCE_ROUGE_L, REFERENCE_EXACT_MATCH)
)
"""Least means that count as accurate, in percent: 99 % of the reference."""

TOKENS_PER_SAMPLE_RANGE = (0.9 * REFERENCE_TOKENS_PER_SAMPLE, 1.1 * REFERENCE_TOKENS_PER_SAMPLE)
"""Range of the mean tokens of an answer that counts as accurate: 90 % to 110 % of the reference."""


def missed_targets(
    *, rouge_l: float | None, exact_match: float | None, tokens_per_sample: float, failed: int
) -> tuple[str, ...]:
    """Compare the figures of a run with the targets.

    Parameters
    ----------
    rouge_l, exact_match
        Means in percent; None where the dataset has no sample with that metric.
    tokens_per_sample
        Mean tokens of an answer.
    failed
        Requests without an answer.

    Returns
    -------
    tuple[str, ...]
        Each target that is missed, in words; none for an accurate run.
    """
    return tuple(_missed(rouge_l, exact_match, tokens_per_sample, failed))


def _missed(
    rouge_l: float | None, exact_match: float | None, tokens_per_sample: float, failed: int
) -> Iterator[str]:
    """Yield each target that is missed."""
    low, high = TOKENS_PER_SAMPLE_RANGE
    if rouge_l is not None and rouge_l < LEAST_ROUGE_L:
        yield f"ROUGE-L {rouge_l:.4f}, expected at least {LEAST_ROUGE_L:.4f}"
    if exact_match is not None and exact_match < LEAST_EXACT_MATCH:
        yield f"exact match {exact_match:.4f}, expected at least {LEAST_EXACT_MATCH:.4f}"
    if not low <= tokens_per_sample <= high:
        yield f"{tokens_per_sample:.1f} tokens a sample, expected {low:.2f} to {high:.2f}"
    if failed:
        yield f"{failed} requests failed, expected an answer to each"
