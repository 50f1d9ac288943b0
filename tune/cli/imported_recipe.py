"""Write a recipe as options of the configuration, and compose and render them again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from tune.config import InvalidSettings, compose_overrides, shipped_settings
from tune.core.files import make_folder, write_text
from tune.deploy.plan import LaunchPlan, render
from tune.engines.registry import engine_of
from tune.errors import ConfigurationError
from tune.recipes.choices import choose, pool_words, with_lengths
from tune.recipes.options import option_name, recipe_files
from tune.recipes.own_variables import OwnVariables, variables_of_plan, without_own_variables
from tune.recipes.recipe import Recipe
from tune.recipes.stated_lines import stated_at
from tune.spec.settings import Settings


def written_recipe(recipe: Recipe, overrides: Sequence[str]) -> tuple[Recipe, dict[str, str]]:
    """Return a recipe as it is written, without variables that a plan sets by itself, and its files' texts.

    Raises ConfigurationError where `choose` does; `overrides` are those of the command line.
    """
    choices = choose(recipe, overrides)
    if choices.context_tokens is None and "model" not in choices.written:
        model = compose_overrides([f"model={choices.model}"]).settings.model
        choices = replace(choices, context_tokens=model.context_tokens)
    kept = without_own_variables(recipe, _own_variables(choices.stack, pool_words(recipe)))
    kept = with_lengths(kept, shipped_settings().load.dataset)
    return kept, recipe_files(kept, choices)


@cache
def _own_variables(stack: str, pools: tuple[str, ...]) -> OwnVariables:
    settings = compose_overrides([f"stack={stack}", *pools, "cluster=slurm"]).settings
    overridable = engine_of(settings.trial_spec).overridable
    return variables_of_plan(render(settings.trial_spec, settings.cluster), overridable)


def planned(recipe: Recipe, texts: Mapping[str, str]) -> tuple[Settings, LaunchPlan]:
    """Return what the files of a recipe compose to, and the plan of it on Slurm.

    Raises ConfigurationError, with the recipe's line, where they do not compose, and where they cannot be
    launched.
    """
    try:
        with tempfile.TemporaryDirectory() as scratch:
            write_options(Path(scratch), texts)
            words = [f"+recipe={option_name(recipe)}", "cluster=slurm"]
            settings = compose_overrides(words, [scratch]).settings
        return settings, render(settings.trial_spec, settings.cluster)
    except InvalidSettings as error:
        lines = [f"{stated_at(recipe, found.path, found.value)}: {found.text}" for found in error.settings]
        raise ConfigurationError("\n".join([*lines[:-1], f"{lines[-1]} Nothing was written."])) from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{recipe.origin}: {error} Nothing was written.") from None


def write_options(folder: Path, texts: Mapping[str, str]) -> None:
    """Write the files; where one cannot be written, remove those that were, and the folders made for them."""
    files = {folder / name: text for name, text in texts.items()}
    fresh = [path for file in files for path in (file, *file.parents) if not path.exists()]
    try:
        for file, text in files.items():
            make_folder(file.parent, parents=True)
            write_text(file, text)
    except BaseException:  # also Ctrl-C: nothing half-written stays
        for path in fresh:
            with suppress(OSError):  # was not made, or holds what is removed later
                path.rmdir() if path.is_dir() else path.unlink()
        raise
