"""Test recipes with a base and overrides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.recipe_files import DATA, line_of

from tune.config import shipped_settings
from tune.errors import ConfigurationError
from tune.recipes.formats import read_recipes
from tune.recipes.recipe import ClosedLoop, Recipe

OVERRIDES = """
override_long:
  name: long_prompts
  benchmark: {isl: 4000, concurrencies: [8], warm: 3}
  health_check: null
zip_override_batch:
  backend:
    trtllm_config:
      prefill: {max_batch_size: [4, 8]}
      decode: {max_batch_size: [16, 32], stream_interval: [5]}
  benchmark: {concurrencies: [[1, 2], [3]]}
"""

WithOverrides = Callable[[str], Path]


@pytest.fixture
def with_overrides(tmp_path: Path) -> WithOverrides:
    def write(overrides: str) -> Path:
        base = (DATA / "schema1.yaml").read_text()
        file = tmp_path / "variants.yaml"
        file.write_text("base:\n" + "".join(f"  {line}\n" for line in base.splitlines()) + overrides)
        return file

    return write


def named(file: Path, selector: str = "") -> dict[str, Recipe]:
    return {
        recipe.name: recipe for recipe in read_recipes(f"{file}{selector}", None, shipped_settings().hardware)
    }


def test_every_variant_is_a_recipe(with_overrides: WithOverrides) -> None:
    recipes = named(with_overrides(OVERRIDES))
    assert set(recipes) == {"long_prompts", "example_2p1d_batch_0", "example_2p1d_batch_1"}
    long, second = recipes["long_prompts"], recipes["example_2p1d_batch_1"]
    assert long.lengths is not None
    assert (long.lengths.input_tokens, long.lengths.output_tokens) == (4000, 1024)
    assert "deadlines" not in long.cluster, "null deletes"
    assert long.arrivals == ClosedLoop((8,))
    assert [recipe.arrivals for name, recipe in recipes.items() if recipe is not long] == [
        ClosedLoop((1, 2)), ClosedLoop((3,)),
    ]  # fmt: skip
    assert second.pools["decode"].engine_keys["max_batch_size"] == 32
    assert second.pools["decode"].engine_keys["stream_interval"] == 5, "one value is for all"
    assert second.pools["prefill"].engine_keys["max_batch_size"] == 8
    assert second.pools["prefill"].engine_keys["max_num_tokens"] == 8192, "the base's"


def test_lines_are_those_of_the_file(with_overrides: WithOverrides) -> None:
    file = with_overrides(OVERRIDES)
    lines = {part.path: part.line for part in named(file)["long_prompts"].left_out}
    assert lines["benchmark.warm"] == line_of(file, "warm: 3")
    assert lines["slurm.partition"] == line_of(file, "partition")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        (":base", {"example_2p1d"}),
        (":override_long", {"long_prompts"}),
        (":zip_override_batch", {"example_2p1d_batch_0", "example_2p1d_batch_1"}),
        (":zip_override_batch[1]", {"example_2p1d_batch_1"}),
        (":*long*", {"long_prompts"}),
    ],
)
def test_a_selector_chooses_variants(selector: str, names: set[str], with_overrides: WithOverrides) -> None:
    assert set(named(with_overrides(OVERRIDES), selector)) == names


@pytest.mark.parametrize(
    ("overrides", "selector", "message"),
    [
        (OVERRIDES, ":override_short", "expected one of base, override_long, zip_override_batch"),
        (OVERRIDES, ":zip_override_batch[2]", "found 2 variants; expected at least 3"),
        (OVERRIDES + "notes: {a: 1}\n", "", "notes: found notes; expected base, override_NAME"),
        ("zip_override_x:\n  benchmark: {isl: [1, 2], osl: [1, 2, 3]}\n", "", "lists of 2 and 3 values"),
        ("override_x: 3\n", "", "override_x: found 3; expected a mapping"),
    ],
)
def test_what_is_no_variant_is_named(
    overrides: str, selector: str, message: str, with_overrides: WithOverrides
) -> None:
    with pytest.raises(ConfigurationError) as error:
        named(with_overrides(overrides), selector)
    assert message in str(error.value)


def test_variants_whose_files_would_have_one_name_are_refused(with_overrides: WithOverrides) -> None:
    with pytest.raises(ConfigurationError, match="several recipes of the name a-b; expected one of each"):
        named(with_overrides("override_x: {name: a b}\noverride_y: {name: a-b}\n"))


def test_a_recipe_without_a_base_has_no_selector() -> None:
    with pytest.raises(ConfigurationError, match="which has no base"):
        named(DATA / "schema1.yaml", ":override_x")
