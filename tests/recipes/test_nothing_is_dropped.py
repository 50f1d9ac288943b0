"""Test that each part of a recipe is taken over, listed as left out, or refused: none is dropped silently."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.recipe_files import DATA, only

from tune.errors import ConfigurationError
from tune.recipes.document import path_of
from tune.recipes.recipe import Recipe

FILES = (
    "schema1.yaml",
    "schema2.yaml",
    "trtllm_slurm.yaml",
    "dynamo_graph.yaml",
    "dynamo_components.yaml",
    "vllm_graph.yaml",
    "wide_decode.yaml",
    "aggregated.yaml",
    "aggregated_roles.yaml",
    "aggregated_graph.yaml",
)
KEY = "nobody_knows_this"


@pytest.mark.slow  # reads a hundred recipes
@pytest.mark.parametrize("name", FILES)
def test_a_key_that_nobody_knows_is_never_dropped_in_silence(name: str, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((DATA / name).read_text()))
    file = tmp_path / name
    dropped, tried = [], 0
    for place in _mappings(documents, ()):
        changed = copy.deepcopy(documents)
        around: Any = changed
        for part in place:
            around = around[part]
        around[KEY] = "a value"
        file.write_text(yaml.safe_dump_all(changed, sort_keys=False))
        tried += 1
        try:
            recipe = only(file)
        except ConfigurationError:
            continue
        if not _is_taken(recipe) and not _is_listed(recipe, documents, place):
            dropped.append(place)
    assert dropped == []
    assert tried >= 10


def _mappings(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every mapping of a file."""
    if isinstance(value, dict):
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for key, part in inner:
        yield from _mappings(part, (*place, key))


def _is_taken(recipe: Recipe) -> bool:
    held = [recipe.cluster, recipe.routing, *recipe.pools.values()]
    return any(KEY in str(part) for part in held)


def _is_listed(recipe: Recipe, documents: list[Any], place: tuple[Any, ...]) -> bool:
    """Return whether the key, a part around it, or the whole object of Kubernetes is left out by its name."""
    number, *inside = place
    paths = {path_of(tuple(inside[:depth])) for depth in range(1, len(inside) + 1)}
    paths |= {path_of((*inside, KEY)), str(documents[number].get("kind"))}
    return any(part.path in paths for part in recipe.left_out)
