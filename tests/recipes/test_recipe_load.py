"""Test that users or a rate in the benchmark of a recipe become settings and a sweep."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.recipe_files import DATA, Changed, Planned, left_out_paths, line_of, only

from tune.cli.imported_recipe import planned, write_options, written_recipe
from tune.cli.runnable import check_whole_sweep
from tune.config import compose_overrides, shipped_settings
from tune.errors import ConfigurationError
from tune.recipes.document import Document
from tune.recipes.formats import read_recipes
from tune.recipes.recipe import ClosedLoop, OfferedRate
from tune.recipes.recipe_load import read_closed_loop, users_sweep
from tune.spec.base import MAX_COUNT
from tune.spec.findings import only_errors

USERS = st.lists(st.integers(1, MAX_COUNT), min_size=1, max_size=6)
FORMS = ("{}", "[{}]", "['{}']")


def loop_of(text: str, servers: int = 1) -> ClosedLoop | None:
    content = yaml.safe_load(f"users: {text}\n")
    section = Document("recipe.yaml", content, {("users",): 1}).root()
    found = read_closed_loop(section, "users", rounds="rounds", servers=servers)
    assert section.document.left_out({}) == (), "read, so not listed"
    return found


@given(USERS, st.sampled_from([", ", "x", " x ", "  "]), st.integers(1, 8))
def test_every_spelling_of_users_says_the_same(users: list[int], between: str, servers: int) -> None:
    """A list, a list of texts, and a text with separators: each number once, in its order."""
    once = tuple(dict.fromkeys(number * servers for number in users))
    joined = between.join(map(str, users))
    spellings = [f'"{joined}"', str(users), str([str(number) for number in users])]
    assert [loop_of(text, servers) for text in spellings] == [ClosedLoop(once)] * 3


@pytest.mark.parametrize("text", ["null", "64", "'64'", "[64, 64]"])
def test_one_number_of_users_is_one(text: str) -> None:
    assert loop_of(text) == (None if text == "null" else ClosedLoop((64,)))


@pytest.mark.parametrize(
    "text", ["[]", "''", "0", "[4, 0]", "-1", "1.5", "true", "4y8", "{a: 1}", f"[{MAX_COUNT + 1}]", "9" * 30]
)
def test_what_is_no_number_of_users_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"recipe\.yaml, line 1: users: found .*such as \[4, 8\] or"):
        loop_of(text)


@pytest.mark.slow  # composes a configuration
def test_the_users_of_a_recipe_are_its_load(imported: Planned) -> None:
    """srt-slurm sends 16 prompts of each user, tune 10 at least."""
    recipe = only(DATA / "aggregated.yaml")
    assert recipe.arrivals == ClosedLoop((64,), 16)
    load = imported(recipe)[0].load
    assert (load.mode, load.concurrency, load.target_qps) == ("concurrency", 64, None)
    assert load.expected_queries == 16 * 64
    ranges = [lengths.model_dump() for lengths in (load.dataset.inputs, load.dataset.outputs) if lengths]
    assert [(found["range_ratio"], found["range_rule"]) for found in ranges] == [(0.8, "inferencex")] * 2
    assert left_out_paths(recipe) & {"benchmark.num_prompts_mult", "benchmark.req_rate"} == set()


@pytest.mark.slow  # composes a configuration
def test_more_users_than_the_client_keeps_in_flight_by_default_are_kept(
    changed: Changed, imported: Planned
) -> None:
    recipe = only(changed("schema1.yaml", ("[64, 128]", "['8192']")))
    load = imported(recipe)[0].load
    assert (load.concurrency, load.client_concurrency) == (8192, 8192)


@pytest.mark.parametrize(
    ("benchmark", "arrivals", "reason"),
    [
        ("concurrencies: [64]\n  num_prompts_mult: 10", ClosedLoop((64,), 10), None),
        ("concurrencies: [64]\n  num_prompts_mult: 5", ClosedLoop((64,), 5), "10 queries of each user"),
        (
            "concurrencies: 4x8\n  num_prompts_mult: 20",
            ClosedLoop((4, 8)),
            "differs with the number of users",
        ),
        ("concurrencies: 4x8\n  num_prompts_mult: 10", ClosedLoop((4, 8), 10), None),
    ],
)
def test_the_queries_of_a_user_are_taken_or_listed(
    benchmark: str, arrivals: ClosedLoop, reason: str | None, changed: Changed
) -> None:
    recipe = only(changed("schema2.yaml", ('concurrencies: "4x8x16"', benchmark)))
    assert recipe.arrivals == arrivals
    listed = {part.path: part.reason for part in recipe.left_out}.get("benchmark.num_prompts_mult")
    assert (listed is None) == (reason is None)
    assert (reason or "") in (listed or "")


@pytest.mark.parametrize("concurrencies", ["[8, 16]", "4x8", "many"])
def test_a_rate_has_one_limit_of_requests_in_flight(concurrencies: str, changed: Changed) -> None:
    replaced = ('concurrencies: "4x8x16"', f"concurrencies: {concurrencies}\n  req_rate: 7")
    recipe = only(changed("schema2.yaml", replaced))
    assert recipe.arrivals == OfferedRate(7.0)
    (part,) = (part for part in recipe.left_out if part.path == "benchmark.concurrencies")
    assert "load.client_concurrency" in part.reason


def test_users_without_lengths_are_listed(changed: Changed) -> None:
    file = changed("schema2.yaml", ("  isl: 3072\n", ""))
    recipe = only(file)
    assert recipe.arrivals is None
    (part,) = (part for part in recipe.left_out if part.path == "benchmark.concurrencies")
    assert (part.line, "needs lengths" in part.reason) == (line_of(file, "4x8x16"), True)


def test_users_of_tensorrt_llms_benchmark_are_those_of_all_generation_servers(changed: Changed) -> None:
    file = changed(
        "trtllm_slurm.yaml",
        ("num_gen_servers: 1", "num_gen_servers: 3"),
        ('"16"', '"16 32"\n  multi_round: 8'),
    )
    recipe = only(file)
    assert recipe.arrivals == ClosedLoop((48, 96), 8)
    listed = {part.path: part for part in recipe.left_out}
    assert "10 queries of each user" in listed["benchmark.multi_round"].reason
    assert listed["benchmark.multi_round"].line == line_of(file, "multi_round")


def test_users_of_a_row_of_inferencex_are_those_of_its_config_file(tmp_path: Path) -> None:
    """A row that says the same is not listed; one that says something else is, as its file is what runs."""
    (tmp_path / "one.yaml").write_text((DATA / "schema1.yaml").read_text())
    rows = {
        name: {
            "framework": "dynamo-trt",
            "image": "a/b:1",
            "scenarios": {
                "fixed-seq-len": [
                    {
                        "search-space": [
                            {
                                "conc-list": users,
                                "prefill": {"additional-settings": ["CONFIG_FILE=one.yaml"]},
                            }
                        ]
                    }
                ]
            },
        }
        for name, users in {"same": [64, 128], "other": [32]}.items()
    }
    table = tmp_path / "table.yaml"
    table.write_text(yaml.safe_dump(rows))
    for name, listed in (("same", False), ("other", True)):
        (recipe,) = read_recipes(f"{table}:{name}", None, shipped_settings().hardware)
        assert recipe.arrivals == ClosedLoop((64, 128))
        paths = [part.path for part in recipe.left_out if part.path.endswith("conc-list")]
        assert bool(paths) == listed


@pytest.mark.slow  # composes a sweep
def test_several_users_are_a_sweep_beside_the_load_of_the_most(tmp_path: Path) -> None:
    recipe = only(DATA / "schema1.yaml")
    _, texts = written_recipe(recipe, ())
    assert "+sweep=example_2p1d measures each number" in texts["recipe/example_2p1d.yaml"]
    write_options(tmp_path, texts)
    words = ["+recipe=example_2p1d", "+sweep=example_2p1d"]
    settings = compose_overrides(words, [str(tmp_path)]).settings
    assert settings.load.concurrency == 128
    assert settings.sweep
    assert settings.sweep.n_trials == 3
    assert users_sweep(recipe)["sweep"]["space"]["concurrency"]["values"] == [64, 128]
    assert not only_errors(check_whole_sweep(settings))
    assert (settings.slo.ttft_p99_s, settings.slo.tpot_p99_s) == (None, None)
    one = replace(recipe, arrivals=ClosedLoop((64,)))
    _, texts = written_recipe(one, ())
    assert not [name for name in texts if name.startswith("sweep/")]
    assert not re.search(r"\+sweep", texts["recipe/example_2p1d.yaml"])


@pytest.mark.slow  # composes a configuration
def test_a_rate_of_a_recipe_is_its_load(changed: Changed) -> None:
    replaced = ('concurrencies: "4x8x16"', "concurrencies: [64]\n  req_rate: 3")
    settings, _ = planned(*written_recipe(only(changed("schema2.yaml", replaced)), ()))
    load = settings.load
    assert (load.target_qps, load.client_concurrency, load.is_closed_loop) == (3.0, 64, False)
