"""Recognise the format of a recipe, and read it."""

from __future__ import annotations

from pathlib import Path

from tune.errors import ConfigurationError
from tune.recipes.document import read_documents
from tune.recipes.recipe import Recipe
from tune.recipes.srt_slurm import is_srt_slurm, read_srt_slurm
from tune.recipes.variants import expand


def read_recipes(name: str) -> list[Recipe]:
    """Return the recipes of a file, or of one with overrides those that `FILE:SELECTOR` chooses.

    Raises ConfigurationError for a file that cannot be read and for one of no known format.
    """
    file, selector = _split(name)
    documents = read_documents(file)
    if len(documents) == 1 and is_srt_slurm(documents[0]):
        return [read_srt_slurm(variant) for variant in expand(documents[0], selector)]
    raise ConfigurationError(
        f"{file}, line 1: found no recipe that is known; expected one of srt-slurm (model, resources and "
        "backend, or roles). Nothing was written."
    )


def _split(name: str) -> tuple[Path, str | None]:
    """Return the file and the selector of `FILE:SELECTOR`."""
    file, colon, selector = name.rpartition(":")
    if Path(name).exists() or not colon:
        return Path(name), None
    return Path(file), selector
