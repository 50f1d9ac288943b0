"""Read recipes that tests change: their text, not their objects, so that lines stay those of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.recipe_files import DATA, Changed, Planned

from tune.cli.imported_recipe import planned, written_recipe
from tune.deploy.plan import LaunchPlan
from tune.recipes.recipe import Recipe
from tune.spec.settings import Settings


@pytest.fixture
def changed(tmp_path: Path) -> Changed:
    """Copy a recipe and replace parts of its text, each of which has to be there."""

    def copy(name: str, *replacements: tuple[str, str]) -> Path:
        text = (DATA / name).read_text()
        for before, after in replacements:
            assert text.count(before) >= 1, before
            text = text.replace(before, after)
        file = tmp_path / name
        file.write_text(text)
        return file

    return copy


@pytest.fixture
def imported() -> Planned:
    """Write a recipe as configuration, compose it, and render its plan on Slurm."""

    def write_and_plan(recipe: Recipe) -> tuple[Settings, LaunchPlan]:
        return planned(*written_recipe(recipe, ()))

    return write_and_plan
