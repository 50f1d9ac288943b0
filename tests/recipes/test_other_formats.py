"""Test recipes of TensorRT-LLM and InferenceX, srt-slurm's schema 2, and engine pairs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.recipe_files import DATA, Changed, Planned, left_out_paths, line_of, only, with_pool

from tune.cli.imported_recipe import written_recipe
from tune.config import compose_overrides, shipped_settings
from tune.errors import ConfigurationError
from tune.recipes.choices import with_lengths
from tune.recipes.formats import read_recipes
from tune.recipes.plan_differences import differences
from tune.recipes.recipe import ClosedLoop, Lengths, OfferedRate

TABLE = DATA.parent / "recipe_table" / "configs" / "nvidia-master.yaml"
PAIR = DATA.parent / "engine_pair"


def test_schema_2_states_what_schema_1_does() -> None:
    recipe = only(DATA / "schema2.yaml")
    assert (recipe.rack.nodes, recipe.rack.head) == (4, "none"), "one node for etcd and NATS together"
    assert (recipe.pools["prefill"].workers, recipe.pools["prefill"].gpus_per_worker) == (2, 2)
    assert (recipe.pools["decode"].workers, recipe.pools["decode"].gpus_per_worker) == (1, 8)
    assert recipe.pools["prefill"].env == {"NCCL_DEBUG": "INFO", "UCX_TLS": "cuda_ipc,rc"}, (
        "the role's own value wins"
    )
    assert recipe.pools["decode"].env == {"NCCL_DEBUG": "WARN"}
    assert recipe.routing.frontends == 2
    assert recipe.model.served_name == "meta-llama/Llama-3.3-70B-Instruct"
    assert recipe.dynamo == "1.4.2"
    assert recipe.lengths is not None
    assert recipe.lengths.lowest_share == 0.8, "srt-slurm's own default"
    assert recipe.cluster["container_mounts"] == ["/data:/data"]
    assert left_out_paths(recipe) >= {
        "engine.numa_cpu_bind", "roles.prefill.env.NODE", "container_mounts.{model_path}",
        "dynamo.source.pypi",
    }  # fmt: skip
    assert recipe.arrivals == ClosedLoop((4, 8, 16))
    assert "benchmark.concurrencies" not in left_out_paths(recipe)


@pytest.mark.parametrize(
    ("before", "after", "line", "part"),
    [
        ("  type: trtllm", "  type: sglang", "type: sglang", "found sglang; expected trtllm or vllm"),
        ("    nodes: 2\n", "    nodes: 0\n", "nodes: 0", "roles.decode.nodes: found 0"),
        (
            "  decode:\n",
            "  agg:\n",
            "  agg:",
            "prefill and decode workers, or aggregated ones alone: prefill stands beside it",
        ),
        ("schema: 2", "schema: 3", "schema: 3", "schema: found 3; expected 1 or 2"),
    ],
)
def test_a_broken_schema_2_is_named(before: str, after: str, line: str, part: str, changed: Changed) -> None:
    file = changed("schema2.yaml", (before, after))
    with pytest.raises(ConfigurationError) as error:
        only(file)
    assert part in str(error.value)
    assert f"{file}, line {line_of(file, line)}: " in str(error.value)


def test_decode_workers_may_share_the_nodes_of_prefill(changed: Changed) -> None:
    replaced = (
        ("    nodes: 2\n    workers: 1\n", "    nodes: colocate\n    workers: 1\n    gpus: 2\n"),
        ("    workers: 2\n    gpus: 2\n", "    workers: 1\n    gpus: 2\n"),
        ("size: 8\n", "size: 2\n"),
    )
    recipe = only(changed("schema2.yaml", *replaced))
    assert (recipe.rack.nodes, recipe.pools["decode"].gpus_per_worker) == (2, 2)


def test_tensorrt_llms_benchmark_on_slurm() -> None:
    recipe = only(DATA / "trtllm_slurm.yaml")
    assert (recipe.name, recipe.rack.nodes, recipe.rack.head) == ("example_1c1g", 3, "decode")
    assert (recipe.pools["prefill"].gpus_per_worker, recipe.pools["decode"].gpus_per_worker) == (4, 8)
    assert recipe.pools["decode"].env == {"TLLM_LOG_LEVEL": "INFO", "TRTLLM_ENABLE_PDL": "1"}
    assert recipe.routing.env == {"TRTLLM_SERVER_DISABLE_GC": "1"}
    assert recipe.cluster["container_mounts"] == ["/data:/data", "/logs:/logs"]
    assert left_out_paths(recipe) >= {"slurm.account", "server"}
    assert "benchmark.concurrency_list" not in left_out_paths(recipe)
    assert recipe.arrivals == ClosedLoop((16,))
    assert recipe.cluster["command_prefix"]["decode"] == ["numactl", "-m", "0,1"], "numa_bind"


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        (
            "  num_ctx_servers: 1\n",
            "  num_ctx_servers: 0\n",
            "hardware.num_ctx_servers: found 0; expected a whole",
        ),
        ("  gen:\n", "  generation:\n", "worker_config.gen: found nothing; expected the keys of the engine"),
        ("TRTLLM_ENABLE_PDL=1", "TRTLLM_ENABLE_PDL", "worker_env_var: found"),
        ("  gpus_per_node: 4\n", "", "hardware.gpus_per_node: found nothing"),
    ],
)
def test_a_broken_benchmark_of_tensorrt_llm_is_named(
    before: str, after: str, part: str, changed: Changed
) -> None:
    with pytest.raises(ConfigurationError, match=r"trtllm_slurm.yaml, line \d+: ") as error:
        only(changed("trtllm_slurm.yaml", (before, after)))
    assert part in str(error.value)


@pytest.mark.slow  # composes configurations
def test_a_length_that_a_recipe_leaves_open_is_that_of_the_chosen_model(changed: Changed) -> None:
    recipe = only(changed("vllm_graph.yaml", (" --max-model-len 21000", "")))
    words = ["model=llama3_1_70b_fp4"]
    _, texts = written_recipe(recipe, words)
    longest = compose_overrides(words).settings.model.context_tokens
    assert longest
    assert f"max_model_len: {longest}" in texts["prefill/example-vllm.yaml"]


def test_what_a_shell_does_around_a_worker_is_listed(changed: Changed) -> None:
    before, last = "python3 -m dynamo.vllm --model", " --no-enable-prefix-caching"
    replaced = ((before, f"ulimit -n 9000; {before}"), (f"{last} \\\n", f"{last} 2>&1 | tee /tmp/log\n"))
    recipe = only(changed("vllm_graph.yaml", *replaced))
    shell = [part.value for part in recipe.left_out if part.path == "prefill command"]
    assert shell[0] == "ulimit -n 9000;"
    assert shell[1].startswith("2>&1 | tee /tmp/log")
    assert "prefill" not in recipe.cluster["command_prefix"]
    assert recipe.pools["prefill"].engine_keys["enable_prefix_caching"] is False


@pytest.mark.parametrize(
    ("replaced", "prefixes"),
    [
        ((), {"prefill", "decode"}),
        ((("gpu_type: gb200", "gpu_type: h200"),), set()),
        ((("  type: trtllm", "  type: trtllm\n  numa_memory_bind: false"),), set()),
        ((("  type: dynamo", "  type: dynamo\n  numa_bind: true"),), {"prefill", "decode", "frontend"}),
    ],
)
def test_srt_slurm_binds_memory_as_the_gpu_and_the_recipe_say(
    replaced: tuple[tuple[str, str], ...], prefixes: set[str], changed: Changed
) -> None:
    found = only(changed("schema2.yaml", *replaced)).cluster.get("command_prefix", {})
    assert found.keys() == prefixes
    assert all(words[0] == "numactl" for words in found.values())


@pytest.mark.parametrize(
    ("rate", "qps", "listed"),
    [('"12.5"', 12.5, set()), ("3", 3.0, set()), ("inf", None, set()), ("0", None, {"benchmark.req_rate"})],
)
def test_a_rate_of_srt_slurm_is_an_open_loop(
    rate: str, qps: float | None, listed: set[str], changed: Changed
) -> None:
    replaced = ('concurrencies: "4x8x16"', f"concurrencies: [64]\n  req_rate: {rate}")
    recipe = only(changed("schema2.yaml", replaced))
    assert recipe.arrivals == (OfferedRate(qps, 64) if qps else ClosedLoop((64,)))
    assert left_out_paths(recipe) & {"benchmark.req_rate", "benchmark.concurrencies"} == listed
    with pytest.raises(ConfigurationError, match=r"req_rate: found soon; expected queries/s, or inf"):
        only(changed("schema2.yaml", (replaced[0], "req_rate: soon")))


def test_rows_of_inferencex_lead_to_their_recipe() -> None:
    (recipe,) = read_recipes(f"{TABLE}:two_prefill", None, shipped_settings().hardware)
    assert (recipe.name, recipe.pools["prefill"].workers) == ("two_prefill", 2)
    assert recipe.cluster["container_image"] == "nvcr.io/example/runtime:1.4.0", "the row's"
    left_out = {part.path: part for part in recipe.left_out}
    assert "its config file, which is what runs, has 2" in left_out["prefill.num-worker"].reason
    assert {"llama-fp4-gb200-dynamo-trt.runner"} <= left_out.keys()
    assert not [path for path in left_out if "CONFIG_FILE" in left_out[path].value]


def test_a_row_of_vllm_leads_to_its_recipe(tmp_path: Path) -> None:
    content = yaml.safe_load((DATA / "schema2.yaml").read_text())
    content["engine"]["type"] = "vllm"
    for role, gpus in (("prefill", 2), ("decode", 8)):
        content["roles"][role]["args"] = {"tensor-parallel-size": gpus, "max-model-len": 4224}
    (tmp_path / "wide.yaml").write_text(yaml.safe_dump(content))
    point = {"prefill": {"additional-settings": ["CONFIG_FILE=wide.yaml"]}}
    row = {
        "framework": "dynamo-vllm",
        "image": "a/b:1",
        "scenarios": {"fixed-seq-len": [{"search-space": [point]}]},
    }
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({"row": row}))
    recipe = only(tmp_path / "table.yaml")
    assert (recipe.engine, recipe.pools["prefill"].workers, recipe.pools["decode"].gpus_per_worker) == (
        "dynamo_vllm",
        2,
        8,
    )


@pytest.mark.parametrize(
    ("selector", "part"),
    [
        ("absent", "CONFIG_FILE=recipes/trtllm/absent.yaml, which is not there; expected that file below"),
        ("*sglang", "framework: found dynamo-sglang; expected dynamo-trt, dynamo-trtllm, dynamo-vllm,"),
        ("nothing", "expected one of llama-fp4-gb200-dynamo-trt, llama-fp4-gb200-dynamo-sglang, or the name"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(selector: str, part: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_recipes(f"{TABLE}:{selector}", None, shipped_settings().hardware)
    assert part in str(error.value)


@pytest.mark.slow  # composes two configurations
def test_the_reference_comes_back_from_its_engine_pair(tmp_path: Path) -> None:
    shipped = shipped_settings()
    (recipe,) = read_recipes(str(PAIR), shipped.split, shipped.hardware)
    _, texts = written_recipe(recipe, ["model=llama3_1_405b_fp4"])
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = compose_overrides(["+recipe=engine_pair"], [str(tmp_path)]).settings
    assert found.trial_spec == shipped.trial_spec


def test_an_engine_pair_needs_its_workers_and_both_files(tmp_path: Path) -> None:
    shipped = shipped_settings()
    with pytest.raises(ConfigurationError, match=r"split\.prefill_workers=N split\.decode_workers=N"):
        read_recipes(str(PAIR), None, shipped.hardware)
    shutil.copy(PAIR / "decode.yaml", tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"found decode\.yaml; expected one YAML file of the prefill"
    ):
        read_recipes(str(tmp_path), shipped.split, shipped.hardware)


def test_lengths_fit_the_engines_where_a_recipe_states_none() -> None:
    default = shipped_settings().load.dataset
    recipe = replace(only(DATA / "schema2.yaml"), lengths=None)
    fitted = with_lengths(recipe, default)
    assert fitted.lengths == Lengths(1024, 1024)
    assert "lengths of prompts and answers" in left_out_paths(fitted)
    for limit in ("max_seq_len", "max_num_tokens"):
        keys = {**recipe.pools["prefill"].engine_keys, limit: 101}
        shorter = with_pool(recipe, "prefill", engine_keys=keys)
        assert with_lengths(shorter, default).lengths == Lengths(50, 50)
    longer = only(DATA / "dynamo_graph.yaml")
    assert with_lengths(longer, default) == longer, "the benchmark's load fits"


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize(
    "name", ["schema2.yaml", "trtllm_slurm.yaml", "dynamo_graph.yaml", "vllm_graph.yaml"]
)
def test_every_format_plans_what_it_says(name: str, imported: Planned) -> None:
    recipe, _ = written_recipe(only(DATA / name), ())
    settings, plan = imported(recipe)
    assert differences(recipe, settings.trial_spec, plan) == ()
