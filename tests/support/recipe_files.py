"""Read recipe files, and state what they hold, leave out or change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune.config import shipped_settings
from tune.deploy.plan import LaunchPlan
from tune.recipes.formats import read_recipes
from tune.recipes.recipe import Recipe
from tune.spec.settings import Settings
from tune.spec.split import Role

DATA = Path(__file__).parents[1] / "data" / "recipes"

Changed = Callable[..., Path]
"""A file of `data`, copied with replacements: (file, (before, after), ...)."""

Planned = Callable[[Recipe], tuple[Settings, LaunchPlan]]


def only(file: Path) -> Recipe:
    """Return the one recipe of a file."""
    (recipe,) = read_recipes(str(file), None, shipped_settings().hardware)
    return recipe


def with_pool(recipe: Recipe, role: Role, **changes: Any) -> Recipe:
    """Return a recipe with other workers of a role."""
    return replace(recipe, pools={**recipe.pools, role: replace(recipe.pools[role], **changes)})


def left_out_paths(recipe: Recipe) -> set[str]:
    """Return the paths of the parts that a recipe leaves out."""
    return {part.path for part in recipe.left_out}


def line_of(file: Path, text: str) -> int:
    """Return the line of a file that holds `text`."""
    (number,) = (n for n, line in enumerate(file.read_text().splitlines(), 1) if text in line)
    return number
