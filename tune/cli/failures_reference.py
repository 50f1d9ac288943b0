"""Render docs/reference/failures.md: every rule by which a failure is recognised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tune.engines.registry import adapter_named
from tune.orchestrator.failure_rules import CONSEQUENCES, HARDWARE, SCHEDULER
from tune.report.failure_text import CLASS_MEANING, MEASUREMENT_MEANING
from tune.spec.engine_table import ENGINES
from tune.spec.failure import FailureRule

_INTRODUCTION = """\
# Failures

Every attempt that does not measure has a class, and the class decides what follows. `action=status
study.name=NAME trial=ID` prints the class of each failed attempt, the line that shows it with its file, and
the next step. The rules below are data: `make reference` writes this page from them, and a test compares it.

"""

_CLASS_HEAD = "| class | meaning | what follows |\n|---|---|---|"

_FOLLOWS = {
    "configuration": "the trial is infeasible",
    "infrastructure": "the trial runs again, `study.retries` times in one command, on other nodes than one "
    "that failed twice; then the study goes on with the next trial",
    "harness": "the study stops with exit code 3 and keeps everything; the same command goes on",
}

_ORDER = """\
The end of the log of the process that failed, 256 KiB, is searched rule by rule in this order: GPUs, file
systems and images; the engine's own; what may follow from something else. The first rule that matches a line
decides. What Slurm says of a job that it ended is searched in the message alone. Where no rule knows a line,
a process that ended or a deadline that passed is of the class infrastructure, and an error of tune or of its
client is of the class harness.
"""


def render_failures() -> str:
    """Render the page as Markdown."""
    lines = [_INTRODUCTION + _CLASS_HEAD]
    lines += [f"| {cause} | {meaning} | {_FOLLOWS[cause]} |" for cause, meaning in CLASS_MEANING.items()]
    lines.append(
        f"| measurement | {MEASUREMENT_MEANING} | the trial is measured once more where the reason may pass "
        "(requests without an answer, arrivals at another rate); then it is recorded as not valid |"
    )
    lines += ["", _ORDER, *_table("GPUs, file systems, images", HARDWARE)]
    for name in ENGINES:
        lines += _table(f"Engine `{name}`", adapter_named(name).signals.failure_rules)
    lines += _table("What may follow from something else", CONSEQUENCES)
    lines += _table("What Slurm says of a job", SCHEDULER)
    return "\n".join(lines)


def _table(title: str, rules: Sequence[FailureRule]) -> Iterator[str]:
    """Yield the lines of a section with one table, a blank line last."""
    yield from (
        f"## {title}",
        "",
        "| rule | class | what happened | next step | source |",
        "|---|---|---|---|---|",
    )
    for rule in rules:
        again = "" if rule.repeats else " It is not repeated by itself."
        cells = (f"`{rule.name}`", rule.cause, rule.meaning, rule.next_step + again, rule.source)
        yield f"| {' | '.join(cells)} |"
    yield ""
