"""Import a folder of recipes, and find which come through whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # composes a configuration for every recipe


@pytest.fixture
def render_recipes(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("render_recipes")


def test_every_recipe_comes_through_whole(render_recipes: Any, root: Path) -> None:
    results = list(render_recipes.import_folder(root / "tests" / "data" / "recipes", export=False))
    assert {result.file for result in results} >= {"nested/small_workers.yaml", "wide_decode.yaml"}
    assert [result for result in results if result.verdict != "whole"] == []


def test_what_does_not_come_through_is_named(render_recipes: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("- 1\n")
    recipe = (root / "tests" / "data" / "recipes" / "wide_decode.yaml").read_text()
    (tmp_path / "differs.yaml").write_text(recipe.replace("gpus_per_decode: 8", "gpus_per_decode: 4"))
    (tmp_path / "broken.yaml").write_text(recipe.replace("isl: 1024", "isl: 100000"))
    shutil.copy(root / "tests" / "data" / "recipes" / "wide_decode.yaml", tmp_path)
    found = {result.file: result for result in render_recipes.import_folder(tmp_path, export=False)}
    assert {file: result.verdict for file, result in found.items()} == {
        "other.yaml": "refused", "differs.yaml": "differs", "broken.yaml": "broken",
        "wide_decode.yaml": "whole",
    }  # fmt: skip
    assert found["differs.yaml"].differences == (
        "decode_w0: 8 GPUs, in the recipe 4",
        "decode_w1: 8 GPUs, in the recipe 4",
    )
    assert found["broken.yaml"].broken_rules
