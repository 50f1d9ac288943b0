"""Describe in text whether a run measured what was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tune.analysis.run_checks.table import CHECKS
from tune.records.outcome import Outcome
from tune.records.run_check import CheckResult, RunCheck

RESULT_WORDS: dict[CheckResult, str] = {
    "off": "off",
    "as_meant": "as meant",
    "not_counted": "not counted",
}
"""Results in the order in which a summary names them."""

_KINDS = {kind.name: kind for kind in CHECKS}


def check_title(check: RunCheck) -> str:
    """Return the name of a check as reports show it."""
    return _KINDS[check.name].title if check.name in _KINDS else check.name


def names_with(checks: Iterable[RunCheck], result: CheckResult) -> str:
    """Return the titles of the checks with a result, between commas."""
    return ", ".join(check_title(check) for check in checks if check.result == result)


def summarise_checks(checks: Iterable[RunCheck]) -> str:
    """Return the titles by result, such as "off: workers; as meant: client; not counted: clocks"."""
    checks = tuple(checks)
    parts = ((word, names_with(checks, result)) for result, word in RESULT_WORDS.items())
    return "; ".join(f"{word}: {names}" for word, names in parts if names)


def off_phrases(outcome: Outcome) -> Iterator[str]:
    """Yield what is off in the run that is judged, then what is off in other probes alone."""
    for check in outcome.checks:
        if check.result == "off":
            yield f"{check_title(check)}: {check.found}"
    judged = {check.name for check in outcome.checks if check.result == "off"}
    for probe in outcome.probes:
        for check in probe.checks:
            if check.result == "off" and check.name not in judged:
                yield f"{check_title(check)} at {probe.target_qps:g} queries/s: {check.found}"


def check_lines(outcome: Outcome) -> list[str]:
    """Return every check of the run that is judged: result, what was found, threshold, evidence, remedy."""
    lines = []
    for check in sorted(outcome.checks, key=lambda check: list(RESULT_WORDS).index(check.result)):
        lines.append(f"{RESULT_WORDS[check.result]:<11} {check_title(check)}: {check.found}")
        lines.append(f"            expected: {check.threshold}")
        if check.evidence:
            lines.append(f"            see {', '.join(check.evidence)}")
        if check.result == "off" and check.name in _KINDS:
            lines.append(f"            {_KINDS[check.name].remedy}")
    return lines
