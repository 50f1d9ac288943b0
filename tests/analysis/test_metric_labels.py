"""Check that labels, titles and units of metrics are written in the registry only."""

import ast
import re

import pytest

from tune.spec.metrics import LATENCIES, LIMITS, RATES, STATISTICS

LOADGEN_TEXTS = {"tune/loadgen/log_writer.py", "tune/loadgen/summary_log.py", "tune/loadgen/verdict.py"}
"""Files that write or read the wording of LoadGen's logs."""


def literals(module: ast.Module):
    """Yield the string literals of a module that are no docstrings, parts of f-strings included."""
    docstrings = {id(node.value) for node in ast.walk(module) if isinstance(node, ast.Expr)}
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def is_label(text: str) -> bool:
    """Return whether a literal repeats a label, title or unit of the registry.

    The units tokens/s and queries/s also belong to settings; "latency", "mean" and "median" are plain words.
    """
    words = {latency.label for latency in LATENCIES} - {"latency"}
    words |= {latency.title for latency in LATENCIES} | {limit.label for limit in LIMITS}
    whole = {statistic.title for statistic in STATISTICS} - {"mean", "median"}
    whole |= {rate.title for rate in RATES} | {rate.unit for rate in RATES} - {"tokens/s", "queries/s"}
    whole |= {
        f"{limit.name}_{limit.latency.shown_unit}" for limit in LIMITS if limit.latency.shown_unit != "s"
    }
    return text in whole or any(re.search(rf"\b{re.escape(word)}\b", text) for word in words)


@pytest.mark.slow
def test_labels_are_written_in_the_registry_only(root):
    registry = {"tune/spec/metrics.py"}
    files = {path.relative_to(root).as_posix(): path for path in sorted((root / "tune").rglob("*.py"))}
    written = [
        (name, line, text)
        for name, path in files.items()
        if name not in LOADGEN_TEXTS | registry
        for line, text in literals(ast.parse(path.read_text(encoding="utf-8")))
        if is_label(text)
    ]
    assert written == [], "\n".join(map(str, written))
    assert files.keys() >= LOADGEN_TEXTS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99 TTFT", True),
        (" tokens, TPOT ", True),
        ("tpot_p99_ms", True),
        ("p99 latency", True),
        ("99th percentile", True),
        ("tokens/s/GPU", True),
        ("the 99th percentile holds", False),
        ("latency", False),
    ],
)
def test_label_written_by_hand_is_noticed(text, expected):
    (found,) = (is_label(value) for _, value in literals(ast.parse(f'"""Doc, TTFT."""\nNAME = {text!r}')))
    assert found == expected
