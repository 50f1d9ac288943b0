"""Parse vLLM's arguments as its own parser does, read from the usage that it printed."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

USAGE = Path(__file__).parents[1] / "data" / "vllm" / "unknown_argument.log"
_OPTION = re.compile(r"\[(--[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*)\]")


def vllm_parser() -> argparse.ArgumentParser:
    """Return a parser with every argument of the usage: its flags, choices, and whether it takes several."""
    text = " ".join(USAGE.read_text(encoding="utf-8").split())
    parser = argparse.ArgumentParser(prog="__main__.py", allow_abbrev=False, add_help=False)
    for option in _OPTION.findall(text):
        _add(parser, option)
    return parser


def _add(parser: argparse.ArgumentParser, option: str) -> None:
    alternatives = [part.split(" ", 1) for part in option.split(" | ")]
    flags = [words[0] for words in alternatives]
    negated = [flag for flag in flags if flag.startswith("--no-")]
    value = alternatives[-1][1] if len(alternatives[-1]) > 1 else ""
    if negated:
        parser.add_argument(*(set(flags) - set(negated)), action=argparse.BooleanOptionalAction)
    elif not value:
        parser.add_argument(*flags, action="store_true")
    else:
        choices = re.fullmatch(r"\{([^{}]*)\}", value)
        parser.add_argument(
            *flags,
            choices=choices[1].split(",") if choices else None,
            nargs="+" if "..." in value else None,
        )
