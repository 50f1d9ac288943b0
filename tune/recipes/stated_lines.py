"""Find the line of a recipe that states a setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune.recipes.recipe import Lines, Recipe


def stated_at(recipe: Recipe, path: Sequence[str | int], value: Any) -> str:
    """Return the file, and the line if it is found, in which a recipe states a setting.

    Parameters
    ----------
    recipe
        The recipe.
    path
        Path of the setting, such as prefill, kv_cache_config, dtype.
    value
        Its value.

    Returns
    -------
    str
        FILE, line N; where no line has the name, the first line of the pool's keys, or the file alone.
    """
    own = [lines for role, pool in recipe.pools.items() if role == path[0] for lines in pool.stated]
    name = [part for part in path if isinstance(part, str)][-1]
    for places, words in (((*own, *recipe.stated), str(value)), (own or recipe.stated, "")):
        for lines in places:
            if number := _line_of(name, words, lines):
                return f"{lines.file}, line {number}"
    if own:
        return f"{own[0].file}, line {own[0].first}"
    return recipe.stated[0].file if recipe.stated else recipe.origin


def value_at(recipe: Recipe, value: str) -> str:
    """Return the file and the first line in which a recipe has `value`; its origin where no line has it."""
    for lines in recipe.stated:
        for number, line in enumerate(Path(lines.file).read_text(encoding="utf-8").splitlines(), 1):
            if value in line:
                return f"{lines.file}, line {number}"
    return recipe.origin


def _line_of(name: str, value: str, lines: Lines) -> int | None:
    """Return the first line with a value behind a name, or else behind one that ends in it."""
    text = Path(lines.file).read_text(encoding="utf-8").splitlines()
    numbered = list(enumerate(text, 1))[lines.first - 1 : lines.last]
    ending = re.escape(name).replace("_", "[_-]")
    for pattern in (rf"(?<![\w-])(?:--)?{ending}(?![\w-])", rf"{ending}(?![\w-])"):
        for number, line in numbered:
            if (found := re.search(pattern, line)) and value in line[found.end() :]:
                return number
    return None
