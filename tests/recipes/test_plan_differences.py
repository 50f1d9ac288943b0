"""Test that the comparison of a plan with its recipe sees every difference that it claims to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.recipe_files import DATA, Planned, only, with_pool

from tune.recipes.plan_differences import differences, written_out
from tune.recipes.recipe import ClosedLoop, Lengths, OfferedRate, Recipe

pytestmark = pytest.mark.slow  # composes configurations


def _with_keys(recipe: Recipe, **keys: Any) -> Recipe:
    return _decode(recipe, engine_keys={**recipe.pools["decode"].engine_keys, **keys})


def _decode(recipe: Recipe, **changes: Any) -> Recipe:
    return with_pool(recipe, "decode", **changes)


def _routing(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, routing=replace(recipe.routing, **changes))


def _prefill(recipe: Recipe, **changes: Any) -> Recipe:
    return with_pool(recipe, "prefill", **changes)


CHANGES: dict[str, Callable[[Recipe], Recipe]] = {
    "decode.yaml.stream_interval: 10": lambda recipe: _with_keys(recipe, stream_interval=11),
    "decode.yaml.novelty: absent": lambda recipe: _with_keys(recipe, novelty=1),
    "max_batch_size: 128, in the recipe 128.0": lambda recipe: _with_keys(recipe, max_batch_size=128.0),
    "kv_cache_config.dtype: 'fp8'": lambda recipe: _with_keys(recipe, kv_cache_config={"dtype": "auto"}),
    "decode_w0: A=None, in the recipe 1": lambda recipe: _decode(recipe, env={"A": "1"}),
    "decode_w0: A is not passed on": lambda recipe: _decode(recipe, env={"A": None}),
    "prefill: 2 workers, in the recipe 3": lambda recipe: _prefill(recipe, workers=3),
    "decode_w0: 8 GPUs, in the recipe 4": lambda recipe: _decode(recipe, gpus_per_worker=4),
    "frontends: 1, in the recipe 3": lambda recipe: _routing(recipe, frontends=3),
    "its router is not kv": lambda recipe: _routing(recipe, router_mode="kv"),
    "requests travel over tcp, in the recipe nats": lambda recipe: _routing(recipe, request_plane="nats"),
    "rack: 4 x 4 GPUs": lambda recipe: replace(recipe, rack=replace(recipe.rack, nodes=5)),
    "frontend: A=None": lambda recipe: _routing(recipe, env={"A": "1"}),
    "longest prompt and answer: (3072, 1024)": lambda recipe: replace(recipe, lengths=Lengths(3072, 1000)),
    "load: 128 users, in the recipe 127 users": lambda recipe: replace(recipe, arrivals=ClosedLoop((127, 4))),
    "load: 128 users, in the recipe 2 queries/s": lambda recipe: replace(recipe, arrivals=OfferedRate(2.0)),
}
"""What the comparison says of a recipe that was changed after it was planned."""


def test_every_difference_is_seen(imported: Planned) -> None:
    recipe = only(DATA / "schema1.yaml")
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()
    for line, change in CHANGES.items():
        found = differences(change(recipe), settings.trial_spec, plan)
        assert any(line in difference for difference in found), (line, found)


def test_defaults_of_the_engine_that_are_written_out_are_named(imported: Planned) -> None:
    recipe = only(DATA / "schema1.yaml")
    _, plan = imported(recipe)
    assert written_out(recipe, plan) == ()
    stated = recipe.pools["decode"].engine_keys
    keys = {key: value for key, value in stated.items() if key != "max_num_tokens"}
    keys["kv_cache_config"] = {"dtype": "fp8"}
    shorter = _decode(recipe, engine_keys=keys)
    settings, plan = imported(shorter)
    assert differences(shorter, settings.trial_spec, plan) == ()
    assert set(written_out(shorter, plan)) == {
        "decode.max_num_tokens=8192",
        "decode.kv_cache_config.free_gpu_memory_fraction=0.9",
        "decode.kv_cache_config.enable_block_reuse=True",
    }


@pytest.mark.parametrize("key", ["cuda_graph_config", "scheduler_config"])
def test_a_key_that_is_null_says_what_an_absent_one_says_or_is_kept(key: str, imported: Planned) -> None:
    recipe = _with_keys(only(DATA / "schema1.yaml"), **{key: None})
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()
    assert ("cuda_graph_config: null" in plan.files["decode.yaml"]) == (key == "cuda_graph_config")
