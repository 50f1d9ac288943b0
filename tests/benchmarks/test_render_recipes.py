"""Render recipes of deployments, and find what differs in their plans."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def render_recipes(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("render_recipes")


@pytest.fixture
def recipes(render_recipes: Any, root: Path) -> dict[str, Any]:
    return dict(render_recipes.read_recipes(root / "tests" / "data" / "recipes"))


def test_every_recipe_is_rendered_as_it_is(render_recipes: Any, recipes: dict[str, Any]) -> None:
    assert sorted(recipes) == ["nested/small_workers.yaml", "wide_decode.yaml"]
    for file, recipe in recipes.items():
        assert render_recipes.compare(file, recipe) == render_recipes.Comparison(file)


def test_a_recipe_of_another_deployment_is_passed_over(render_recipes: Any, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1\n")
    (tmp_path / "b.yaml").write_text("backend: {type: sglang}\n")
    assert not list(render_recipes.read_recipes(tmp_path))


def test_what_a_plan_cannot_hold_is_named(render_recipes: Any, recipes: dict[str, Any]) -> None:
    file = "wide_decode.yaml"
    refused, differs = copy.deepcopy(recipes[file]), copy.deepcopy(recipes[file])
    refused["backend"]["trtllm_config"]["decode"]["kv_cache_config"]["dtype"] = "fp3"
    found = render_recipes.compare(file, refused)
    assert (found.verdict, "decode.kv_cache_config.dtype: found 'fp3'" in found.refused) == ("refused", True)
    del differs["backend"]["trtllm_config"]["decode"]["kv_cache_config"]["free_gpu_memory_fraction"]
    differs["resources"]["gpus_per_decode"] = 4
    found = render_recipes.compare(file, differs)
    assert found.verdict == "differs"
    assert found.differences == (
        "decode.yaml.kv_cache_config.free_gpu_memory_fraction: 0.9, in the recipe 'absent'",
        "decode_w0: 8 GPUs",
        "decode_w1: 8 GPUs",
    )
