"""Test recipes of workers that prefill and decode, in every format, and the texts exported of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.recipe_files import DATA, Changed, Planned, left_out_paths, line_of, only

from tune.cli.import_command import import_action
from tune.cli.imported_recipe import written_recipe
from tune.cli.trial_export import Target, exported_trial
from tune.config import compose_overrides, shipped_settings
from tune.errors import ConfigurationError
from tune.recipes.formats import read_recipes
from tune.recipes.plan_differences import differences

GOLDEN = Path(__file__).parent / "golden"
FILES = ("aggregated.yaml", "aggregated_roles.yaml", "aggregated_graph.yaml")
EITHER = "expected prefill and decode workers, or aggregated ones alone"


def test_schema_1_with_aggregated_workers() -> None:
    recipe = only(DATA / "aggregated.yaml")
    assert list(recipe.pools) == ["aggregated"]
    pool = recipe.pools["aggregated"]
    assert (pool.workers, pool.gpus_per_worker) == (3, 2)
    assert (recipe.rack.nodes, recipe.rack.gpus_per_node, recipe.rack.head) == (1, 8, "prefill")
    assert pool.env == {"TLLM_LOG_LEVEL": "INFO", "HF_TOKEN": None}
    assert left_out_paths(recipe) == {"backend.aggregated_environment.HF_TOKEN", "benchmark.num_warmup_mult"}


def test_schema_2_with_aggregated_workers() -> None:
    recipe = only(DATA / "aggregated_roles.yaml")
    pool = recipe.pools["aggregated"]
    assert (recipe.engine, pool.workers, pool.gpus_per_worker) == ("dynamo_vllm", 4, 2)
    assert (recipe.rack.nodes, recipe.rack.head) == (3, "none"), "two of workers, one of frontend and client"
    assert recipe.model.served_name == "meta-llama/Llama-3.3-70B-Instruct"
    assert left_out_paths(recipe) == set()


def test_schema_2_began_with_the_fields_of_schema_1(changed: Changed) -> None:
    file = changed("aggregated.yaml", ("name: example_3a", "schema: 2\nname: example_3a"))
    found, wanted = only(file).pools["aggregated"], only(DATA / "aggregated.yaml").pools["aggregated"]
    assert replace(found, stated=wanted.stated) == wanted


def test_workers_get_the_gpus_of_their_nodes_where_none_are_stated(changed: Changed) -> None:
    replaced = (("  gpus_per_agg: 2\n", ""), ("agg_workers: 3", "agg_workers: 4"))
    assert only(changed("aggregated.yaml", *replaced)).pools["aggregated"].gpus_per_worker == 2
    alone = changed("aggregated.yaml", ("  agg_nodes: 1\n", ""))
    assert only(alone).rack.nodes == 1, "srt-slurm's own"


def test_memory_of_aggregated_workers_is_bound_as_that_of_others(changed: Changed) -> None:
    file = changed("aggregated.yaml", ("gpu_type: b200", "gpu_type: gb200"))
    assert only(file).cluster["command_prefix"] == {"aggregated": ["numactl", "-m", "0,1"]}
    assert "command_prefix" not in only(DATA / "aggregated.yaml").cluster


@pytest.mark.parametrize(
    ("connector", "line", "value"), [("connector: nixl", 11, "nixl"), ("set: 1", 0, "nixl")]
)
def test_a_connector_that_aggregated_workers_of_vllm_would_get_is_listed(
    connector: str, line: int, value: str, changed: Changed
) -> None:
    """srt-slurm gives it to every worker of vLLM unless it is null."""
    recipe = only(changed("aggregated_roles.yaml", ("connector: null", connector)))
    (part,) = (part for part in recipe.left_out if part.path == "engine.connector")
    assert (part.line, part.value) == (line, value)


def test_a_deployment_of_dynamo_with_aggregated_workers() -> None:
    recipe = only(DATA / "aggregated_graph.yaml")
    pool = recipe.pools["aggregated"]
    assert (pool.workers, pool.gpus_per_worker, recipe.rack.nodes) == (3, 8, 6)
    assert pool.engine_keys["cache_transceiver_config"] == {"backend": "UCX", "max_tokens_in_buffer": 21000}
    assert (recipe.dynamo, recipe.model.path) == ("1.3.1", "nvidia/Llama-3.3-70B-Instruct-FP4")


@pytest.mark.parametrize(
    "replaced",
    [
        ("componentType: worker", "componentType: main"),
        ("componentType: worker", "componentType: worker\n      subComponentType: decode"),
        ("[--model-path,", "[--disaggregation-mode, agg, --model-path,"),
        ("[--model-path,", "[--disaggregation-mode=prefill_and_decode, --model-path,"),
    ],
)
def test_workers_alone_are_aggregated_unless_their_command_says_otherwise(
    replaced: tuple[str, str], changed: Changed
) -> None:
    recipe = only(changed("aggregated_graph.yaml", replaced))
    assert list(recipe.pools) == ["aggregated"]
    assert not [path for path in left_out_paths(recipe) if "disaggregation" in path]


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("name", FILES)
def test_a_plan_holds_what_the_recipe_says(name: str, imported: Planned) -> None:
    recipe, _ = written_recipe(only(DATA / name), ())
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()
    pool = recipe.pools["aggregated"]
    assert settings.split.label == f"{pool.workers}A"
    assert settings.aggregated == settings.prefill == settings.decode
    workers = [process for process in plan.processes if process.gpus]
    assert [process.role for process in workers] == ["aggregated"] * pool.workers
    assert not [word for process in workers for word in process.argv if "disaggregation" in word]


@pytest.mark.slow  # composes a configuration
def test_aggregated_workers_have_no_transceiver_unless_their_recipe_has(imported: Planned) -> None:
    _, without = imported(only(DATA / "aggregated.yaml"))
    _, stated = imported(only(DATA / "aggregated_graph.yaml"))
    assert "backend: UCX" in stated.files["aggregated.yaml"]
    assert "max_tokens_in_buffer" not in without.files["aggregated.yaml"]


@pytest.mark.parametrize(
    ("name", "replaced", "line", "part"),
    [
        (
            "aggregated.yaml",
            ("  agg_workers: 3\n", "  agg_workers: 3\n  decode_workers: 1\n"),
            "agg_workers",
            f"resources.agg_workers: found 3; {EITHER}: decode_workers stands beside it",
        ),
        (
            "aggregated.yaml",
            ("  agg_workers: 3\n", ""),
            "resources:",
            "resources.agg_workers: found nothing; expected a whole number from 1",
        ),
        (
            "aggregated.yaml",
            ("    aggregated:\n", "    decode:\n"),
            "trtllm_config:",
            "backend.trtllm_config.aggregated: found nothing; expected the keys",
        ),
        (
            "aggregated.yaml",
            ("agg_nodes: 1", "agg_nodes: 0.5"),
            "agg_nodes",
            "agg_nodes: found 0.5; expected a",
        ),
        (
            "aggregated_roles.yaml",
            ("roles:\n", "roles:\n  prefill: {nodes: 1}\n"),
            "  agg:",
            f"roles.agg: found {{nodes, workers, gpus, env, args}}; {EITHER}: prefill stands beside it",
        ),
        (
            "aggregated_graph.yaml",
            ("[--model-path,", "[--disaggregation-mode, prefill, --model-path,"),
            "spec:",
            f"spec: found no decode workers; {EITHER}",
        ),
        (
            "aggregated_graph.yaml",
            ("[--model-path,", "[--disaggregation-mode, encode, --model-path,"),
            "mainContainer: # of workers",
            "found Workers with the role encode; expected prefill or decode by --disaggregation-mode",
        ),
    ],
)
def test_what_is_neither_one_nor_the_other_is_named(
    name: str, replaced: tuple[str, str], line: str, part: str, changed: Changed
) -> None:
    file = changed(name, replaced)
    with pytest.raises(ConfigurationError) as error:
        only(file)
    assert part in str(error.value)
    assert f"{file}, line {line_of(file, line)}: " in str(error.value)


@pytest.mark.slow  # composes a configuration
def test_a_job_of_aggregated_workers_beside_others_is_named(tmp_path: Path) -> None:
    settings = compose_overrides(["split=aggregated", "cluster.container_image=a/b:1"]).settings
    files = exported_trial(settings.trial_spec, settings.cluster, "sbatch", 10.0).recipe.files
    for name, content in files.items():
        (tmp_path / name).write_text(str(content))
    job = tmp_path / "job.sbatch"
    job.write_text(job.read_text().replace("step aggregated_w3 ", "step decode_w0 "))
    with pytest.raises(
        ConfigurationError, match=r"found aggregated workers beside decode; expected one kind"
    ):
        read_recipes(str(tmp_path), None, shipped_settings().hardware)


TRIALS = {
    "aggregated": (
        *("stack=dynamo_v1", "split=aggregated", "hardware.nodes=3", "split.aggregated_workers=3"),
        *("load=fixed", "load.dataset.inputs.range_rule=inferencex", "load.dataset.inputs.range_ratio=0.8"),
        *("load.mode=concurrency", "load.concurrency=64", "load.target_qps=null"),
    ),
    "aggregated_vllm": (
        *("stack=dynamo_vllm", "split=aggregated", "aggregated=vllm"),
        *("hardware.nodes=2", "split.aggregated_workers=2", "load=fixed"),
    ),
}


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("target", ["srt-slurm", "dgd", "sbatch"])
@pytest.mark.parametrize("name", TRIALS)
def test_the_text_of_an_export(name: str, target: Target, regenerate_golden: bool) -> None:
    """Of the folder for Slurm the load client alone: its other files are those of a plan."""
    words = [*TRIALS[name], "cluster.container_image=nvcr.io/example/runtime:1.6.1"]
    settings = compose_overrides(words).settings
    recipe = exported_trial(settings.trial_spec, settings.cluster, target, settings.load.target_qps).recipe
    text = str(recipe.files["client.sh" if target == "sbatch" else recipe.main])
    file = GOLDEN / f"{name}.{target}{'.sh' if target == 'sbatch' else '.yaml'}"
    if regenerate_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("name", ["aggregated.yaml", "schema1.yaml"])
def test_what_an_import_writes_and_says(
    name: str, regenerate_golden: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The written files and the printed lines, of a recipe that is named from its own folder."""
    monkeypatch.chdir(DATA)
    import_action(compose_overrides(["action=import", f"recipe={name}", f"to={tmp_path / 'mine'}"]))
    said = capsys.readouterr().out.replace(str(tmp_path), "")
    written = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*.yaml")}
    texts = [f"==> {file}\n{text}" for file, text in sorted(written.items()) if "/model/" not in file]
    text, file = "".join([*texts, "==> said\n", said]), GOLDEN / f"import_{name}.txt"
    if regenerate_golden:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
