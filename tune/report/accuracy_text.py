"""Describe the result of an accuracy run in a line of text."""

from __future__ import annotations

from tune.analysis.accuracy_targets import LEAST_EXACT_MATCH, LEAST_ROUGE_L, TOKENS_PER_SAMPLE_RANGE
from tune.records.accuracy import Accuracy


def accuracy_figures(accuracy: Accuracy) -> str:
    """Return the figures of an accuracy run with the benchmark's targets."""
    low, high = TOKENS_PER_SAMPLE_RANGE
    parts = []
    if accuracy.rouge_l is not None:
        parts.append(f"ROUGE-L {accuracy.rouge_l:.4f} (at least {LEAST_ROUGE_L:.4f})")
    if accuracy.exact_match is not None:
        parts.append(f"exact match {accuracy.exact_match:.4f} (at least {LEAST_EXACT_MATCH:.4f})")
    parts.append(f"{accuracy.tokens_per_sample:.1f} tokens a sample ({low:.2f} to {high:.2f})")
    return f"{', '.join(parts)}, over {accuracy.samples:,} samples at {accuracy.target_qps:.4g} queries/s"
