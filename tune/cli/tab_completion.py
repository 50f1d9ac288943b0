"""Complete command lines in bash, for `tune` and for `python -m tune`.

Hydra completes groups, options and settings; this module adds actions and studies, and a script for bash that
knows both forms. The other shells have Hydra's own script, for `tune` alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tune.spec.settings import ACTION_NAMES

_FLAGS = ("-sc", "--shell-completion")

_PROGRAM = re.compile(r"\s*(\S*python[\d.]*\s+-m\s+tune|\S+)\s?")
"""The program of a command line: `tune` by any path, or `python -m tune`."""

BASH_SCRIPT = """\
_tune_complete() {
    local line="${COMP_LINE:0:$COMP_POINT}" program
    local words=($line)
    if [[ ${words[0]##*/} == python* ]]; then
        [[ ${words[1]} == -m && ${words[2]} == tune ]] || return
        program="${words[0]} -m tune"
    else
        program="${words[0]}"
    fi
    local word="${line##* }"
    local choices="$(COMP_LINE="$line" COMP_POINT=$COMP_POINT $program -sc query=bash 2> /dev/null)"
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _tune_complete tune python python3
"""


def answer_completion(words: Sequence[str]) -> bool:
    """Answer a request of shell completion; return whether nothing is left for Hydra to answer.

    For a query it prints actions and studies, and leaves a command line in COMP_LINE that Hydra can read.
    """
    if not any(word in _FLAGS for word in words):
        return False
    if "install=bash" in words:
        print(BASH_SCRIPT, end="")
        return True
    if "query=bash" in words:
        line = _PROGRAM.sub("", os.environ.get("COMP_LINE", ""), count=1)
        print(*_choices(line))
        os.environ["COMP_LINE"] = f"tune {_for_hydra(line)}"
    return False


def _choices(line: str) -> Iterator[str]:
    """Yield what may stand in place of the last word of a line, beside what Hydra knows."""
    *before, last = line.split(" ")
    acts = any(word in ACTION_NAMES or word.startswith("action=") for word in before)
    candidates = [*(() if acts else ACTION_NAMES), *(f"action={name}" for name in ACTION_NAMES)]
    if last.startswith("study.name="):
        runs = next((word.partition("=")[2] for word in before if word.startswith("runs_dir=")), "runs")
        candidates += [f"study.name={path.parent.name}" for path in sorted(Path(runs).glob("*/study.json"))]
    yield from (candidate for candidate in candidates if last and candidate.startswith(last))


def _for_hydra(line: str) -> str:
    """Return a line with plain actions as overrides, apart from the last word, which is not complete."""
    *before, last = line.split(" ")
    words = [f"action={word}" if word in ACTION_NAMES else word for word in before]
    return " ".join([*words, last])
