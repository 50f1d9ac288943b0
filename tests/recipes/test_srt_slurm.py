"""Test recipes of srt-slurm: what is read of them, what they plan, and what is listed as left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.recipe_files import DATA, Changed, Planned, line_of, only

from tune.errors import ConfigurationError
from tune.recipes.plan_differences import differences
from tune.recipes.recipe import Recipe

SCHEMA_1 = "schema1.yaml"


def test_a_recipe_plans_its_engines_environment_and_shapes(imported: Planned) -> None:
    recipe = only(DATA / SCHEMA_1)
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()
    wanted = yaml.safe_load((DATA / SCHEMA_1).read_text())["backend"]["trtllm_config"]
    written = {role: yaml.safe_load(plan.files[f"{role}.yaml"]) for role in wanted}
    wanted["decode"]["cuda_graph_config"]["batch_sizes"] = [1, 2, 64, 128]
    assert written == wanted
    workers = {process.name: process for process in plan.processes if process.gpus}
    assert {name: len(worker.gpus) for name, worker in workers.items()} == {
        "prefill_w0": 2, "prefill_w1": 2, "decode_w0": 8,
    }  # fmt: skip
    assert workers["decode_w0"].env["WORKERS"] == "3"
    assert {0} == {process.node_index for process in plan.processes if not process.gpus}
    assert all(worker.node_index > 0 for worker in workers.values())


@pytest.mark.slow  # composes a configuration
def test_the_settings_around_the_engines_are_taken(imported: Planned) -> None:
    settings, _ = imported(only(DATA / SCHEMA_1))
    assert (settings.hardware.nodes, settings.hardware.name) == (4, "gb200-nvl72")
    dataset, cluster = settings.load.dataset, settings.cluster
    assert (dataset.longest_prompt_tokens, dataset.longest_answer_tokens) == (3072, 1024)
    assert dataset.inputs is not None
    assert dataset.inputs.model_dump()["range_ratio"] == 0.9
    assert settings.stack.env == {"DYN_LOG": "warn", "GREETING": "${HOME} is literal"}
    assert settings.model.served_name == "meta-llama/Llama-3.3-70B-Instruct"
    assert cluster.model_path == "meta-llama/Llama-3.3-70B-Instruct"
    assert (cluster.container_image, cluster.time_limit) == ("nvcr.io/example/runtime:1.3.0", "03:00:00")
    assert cluster.container_mounts == ("/data/weights:/weights",)
    assert cluster.extra_sbatch == ("--cpus-per-gpu=16",)
    assert cluster.deadlines.ready_s == 900
    assert cluster.deadlines.stop_s == 30, "what a recipe does not state stays"


def test_what_is_left_out_is_listed_with_its_line() -> None:
    file = DATA / SCHEMA_1
    left_out = {part.path: part for part in only(file).left_out}
    assert set(left_out) == {
        "slurm.partition", "backend.prefill_environment.HF_TOKEN", "frontend.args.no-kv-events",
        "extra_mount[1]",
    }  # fmt: skip
    assert left_out["slurm.partition"].line == line_of(file, "partition:")
    assert left_out["extra_mount[1]"].line == line_of(file, "configs/local.yaml")


def test_options_that_tune_refuses_are_left_out_with_the_reason(changed: Changed) -> None:
    """An imported file of facts that holds one would be refused by the first plan."""
    refused = (
        "srun_options:\n  het-group: 1\nsbatch_directives:\n  comment: mine\n  exclude: g07\n  export: A=b\n"
    )
    file = changed(SCHEMA_1, ("sbatch_directives:\n", refused))
    recipe = only(file)
    assert recipe.cluster["extra_sbatch"] == ["--cpus-per-gpu=16"]
    reasons = {part.path: part.reason for part in recipe.left_out}
    assert "cluster.exclude names such nodes" in reasons["sbatch_directives.exclude"]
    assert {"sbatch_directives.comment", "sbatch_directives.export", "srun_options.het-group"} <= set(reasons)


@pytest.mark.slow  # composes a configuration
def test_a_secret_is_never_written(imported: Planned) -> None:
    recipe = only(DATA / SCHEMA_1)
    assert recipe.pools["prefill"].env["HF_TOKEN"] is None
    _, plan = imported(recipe)
    assert not [name for name, text in plan.files.items() if "not-a-real-one" in text]


@pytest.mark.parametrize(
    "place", ["", "backend:\n  ", "resources:\n  ", "frontend:\n  ", "benchmark:\n  ", "slurm:\n  "]
)
def test_a_key_that_nobody_knows_is_listed(place: str, changed: Changed) -> None:
    text = (DATA / SCHEMA_1).read_text()
    before = place.partition("\n")[0] if place else "infra:"
    assert f"\n{before}\n" in text
    after = f"{place}novelty: 7" if place else f"novelty: 7\n{before}"
    file = changed(SCHEMA_1, (f"\n{before}\n", f"\n{after}\n"))
    (part,) = (part for part in only(file).left_out if part.path.endswith("novelty"))
    assert (part.value, part.line) == ("7", line_of(file, "novelty"))


def _equal(recipe: Recipe, imported: Planned) -> None:
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()


@pytest.mark.parametrize(
    ("before", "after", "line", "part"),
    [
        (
            "fill_workers: 2",
            "fill_workers: two",
            "two",
            "resources.prefill_workers: found two; expected a whole",
        ),
        ("  decode_workers: 1\n", "", "resources:", "resources.decode_workers: found nothing"),
        ("type: trtllm", "type: sglang", "sglang", "backend.type: found sglang; expected trtllm"),
        (
            "    decode:\n",
            "    aggregated:\n",
            "trtllm_config:",
            "backend.trtllm_config.decode: found nothing",
        ),
        ("decode_nodes: 2", "agg_workers: 4", "agg_workers", "resources.agg_workers: found 4"),
        ('name: "example_2p1d"', "name: 12", "name: 12", "name: found 12; expected a text"),
        (
            "WORKERS: 3",
            "WORKERS: yes",
            "WORKERS",
            "decode_environment.WORKERS: found True; expected a text, in",
        ),
        ("isl: 3072", "osl: 12", "osl: 1024", "benchmark.osl: found a second time, after line"),
        ("ratio: 0.9", "ratio: 9", "ratio: 9", "benchmark.random_range_ratio: found 9; expected a number"),
        ('- "/data/weights:/weights"', "- /data", "- /data", "extra_mount[0]: found /data;"),
        ("frontends: false", "frontends: 3", "frontends: 3", "found 3; expected true or false"),
        ("dynamo:\n", "dynamo: [\n", "request_plane", "Expected YAML"),
        ("resources:\n", "resources: 4\nothers:\n", "resources: 4", "resources: found 4; expected a mapping"),
    ],
)
def test_a_broken_recipe_gets_one_message_with_its_line(
    before: str, after: str, line: str, part: str, changed: Changed
) -> None:
    file = changed(SCHEMA_1, (before, after))
    with pytest.raises(ConfigurationError) as error:
        only(file)
    assert part in str(error.value)
    assert f"{file}, line {line_of(file, line)}: " in str(error.value)


@pytest.mark.slow  # composes a configuration
def test_a_value_that_the_engine_refuses_names_its_key(changed: Changed, imported: Planned) -> None:
    file = changed(SCHEMA_1, ("max_batch_size: 16", "max_batch_size: many"))
    with pytest.raises(ConfigurationError, match=r"prefill\.max_batch_size: found 'many'"):
        imported(only(file))


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize(
    ("image", "plane", "stack"),
    [
        ("nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:0.8.1.post2", "nats", "dynamo_v07"),
        ("nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:1.3.0-dev.1", "nats", "dynamo_v1"),
        ("an-alias", "tcp", "dynamo_v1"),
    ],
)
def test_frontends_router_and_request_plane_are_planned(
    image: str, plane: str, stack: str, changed: Changed, imported: Planned
) -> None:
    file = changed(
        SCHEMA_1,
        ("nvcr.io/example/runtime:1.3.0", image),
        ('request_plane: "tcp"', f'request_plane: "{plane}"'),
        ("enable_multiple_frontends: false", "enable_multiple_frontends: true"),
        ("no-kv-events: true", "router-mode: kv"),
    )
    recipe = only(file)
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()
    assert (settings.stack.name, settings.stack.requests_over) == (stack, plane)
    frontends = [process for process in plan.processes if process.role == "frontend"]
    assert len(frontends) == settings.split.frontends == 2
    assert all("kv" in frontend.argv for frontend in frontends)
    assert not [part for part in recipe.left_out if "router" in part.path or "plane" in part.path]


def test_a_router_and_a_plane_without_a_setting_are_listed(changed: Changed) -> None:
    file = changed(SCHEMA_1, ("no-kv-events: true", "router-mode: sticky"), ('plane: "tcp"', 'plane: "http"'))
    left_out = {part.path: part.value for part in only(file).left_out}
    assert (left_out["router mode"], left_out["request plane"]) == ("sticky", "http")


def test_frontends_follow_the_nodes_where_a_recipe_does_not_limit_them(changed: Changed) -> None:
    file = changed(SCHEMA_1, ("  enable_multiple_frontends: false\n", ""))
    assert only(file).routing.frontends == 2, "three nodes of workers, the first with the proxy"


@pytest.mark.slow  # composes a configuration
def test_workers_get_the_gpus_of_their_nodes_where_none_are_stated(
    changed: Changed, imported: Planned
) -> None:
    file = changed(SCHEMA_1, ("  gpus_per_prefill: 2\n", ""), ("  gpus_per_decode: 8\n", ""))
    recipe = only(file)
    assert (recipe.pools["prefill"].gpus_per_worker, recipe.pools["decode"].gpus_per_worker) == (2, 8)
    _equal(recipe, imported)


def test_a_file_of_no_known_format_names_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text("services: {web: {image: nginx}}\n")
    with pytest.raises(ConfigurationError, match="line 1: found no recipe that is known; expected"):
        only(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        only(tmp_path / "absent.yaml")
