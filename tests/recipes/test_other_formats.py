"""Recipes of TensorRT-LLM, Dynamo and InferenceX, srt-slurm's schema 2, and engine pairs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from recipes.conftest import DATA, Changed, Planned, line_of, only

from tune.cli.imported_recipe import written_recipe
from tune.config import compose_overrides, shipped_settings
from tune.errors import ConfigurationError
from tune.recipes.choices import with_lengths
from tune.recipes.formats import read_recipes
from tune.recipes.plan_differences import differences
from tune.recipes.recipe import Lengths, Recipe

TABLE = DATA.parent / "recipe_table" / "configs" / "nvidia-master.yaml"
PAIR = DATA.parent / "engine_pair"

V1BETA1 = """
apiVersion: v1
kind: ConfigMap
metadata: {name: engines}
data:
  prefill.yaml: "{tensor_parallel_size: 4, max_batch_size: 8, max_num_tokens: 4096, max_seq_len: 21000}"
  decode.yaml: "{tensor_parallel_size: 4, max_batch_size: 8, max_num_tokens: 64, max_seq_len: 21000}"
---
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: beta}
spec:
  env: [{name: SHARED, value: "1"}]
  components:
    - name: Frontend
      type: frontend
      replicas: 2
      podTemplate: {spec: {containers: [{name: main, command: [python3], args: [-m, dynamo.frontend]}]}}
    - name: Prefill
      type: prefill
      replicas: 2
      podTemplate: &worker
        spec:
          containers:
            - name: main
              command: [python3, -m, dynamo.trtllm]
              args: [--model-path, meta-llama/Llama-3.3-70B-Instruct, --extra-engine-args, /c/prefill.yaml]
              resources: {limits: {nvidia.com/gpu: "4"}}
              volumeMounts: [{name: config, mountPath: /c}]
          volumes: [{name: config, configMap: {name: engines}}]
    - name: Decode
      type: decode
      podTemplate:
        spec:
          containers:
            - name: main
              command: [python3, -m, dynamo.trtllm]
              args:
                - --model-path=meta-llama/Llama-3.3-70B-Instruct
                - --extra-engine-args=/c/decode.yaml
                - --max-batch-size=64
                - '--override-engine-args={"max_num_tokens": 128, "kv_cache_config": {"dtype": "fp8"}}'
              resources: {limits: {nvidia.com/gpu: "4"}}
              volumeMounts: [{name: config, mountPath: /c}]
          volumes: [{name: config, configMap: {name: engines}}]
"""


def paths(recipe: Recipe) -> set[str]:
    return {part.path for part in recipe.left_out}


def test_schema_2_states_what_schema_1_does() -> None:
    recipe = only(DATA / "schema2.yaml")
    assert (recipe.rack.nodes, recipe.rack.head) == (4, "none"), "one node for etcd and NATS together"
    assert (recipe.prefill.workers, recipe.prefill.gpus_per_worker) == (2, 2)
    assert (recipe.decode.workers, recipe.decode.gpus_per_worker) == (1, 8)
    assert recipe.prefill.env == {"NCCL_DEBUG": "INFO", "UCX_TLS": "cuda_ipc,rc"}, "the role's own value wins"
    assert recipe.decode.env == {"NCCL_DEBUG": "WARN"}
    assert recipe.routing.frontends == 2
    assert recipe.model.served_name == "meta-llama/Llama-3.3-70B-Instruct"
    assert recipe.dynamo == "1.4.2"
    assert recipe.lengths is not None
    assert recipe.lengths.lowest_share == 0.8, "srt-slurm's own default"
    assert recipe.cluster["container_mounts"] == ["/data:/data"]
    assert paths(recipe) >= {
        "engine.numa_cpu_bind", "roles.prefill.env.NODE", "container_mounts.{model_path}",
        "dynamo.source.pypi", "benchmark.concurrencies",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "line", "part"),
    [
        ("  type: trtllm", "  type: sglang", "type: sglang", "found sglang; expected trtllm or vllm"),
        ("    nodes: 2\n", "    nodes: 0\n", "nodes: 0", "roles.decode.nodes: found 0"),
        ("  decode:\n", "  agg:\n", "  agg:", "prefill and decode workers: tune serves disaggregated"),
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
    assert (recipe.rack.nodes, recipe.decode.gpus_per_worker) == (2, 2)


def test_tensorrt_llms_benchmark_on_slurm() -> None:
    recipe = only(DATA / "trtllm_slurm.yaml")
    assert (recipe.name, recipe.rack.nodes, recipe.rack.head) == ("example_1c1g", 3, "decode")
    assert (recipe.prefill.gpus_per_worker, recipe.decode.gpus_per_worker) == (4, 8)
    assert recipe.decode.env == {"TLLM_LOG_LEVEL": "INFO", "TRTLLM_ENABLE_PDL": "1"}
    assert recipe.routing.env == {"TRTLLM_SERVER_DISABLE_GC": "1"}
    assert recipe.cluster["container_mounts"] == ["/data:/data", "/logs:/logs"]
    assert paths(recipe) >= {"slurm.account", "benchmark.concurrency_list", "server"}
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


def test_a_deployment_of_dynamo_with_its_config_maps() -> None:
    recipe = only(DATA / "dynamo_graph.yaml")
    assert (recipe.name, recipe.rack.nodes, recipe.dynamo) == ("example-graph", 4, "1.3.1")
    assert (recipe.prefill.workers, recipe.prefill.gpus_per_worker) == (2, 4)
    assert (recipe.decode.workers, recipe.decode.gpus_per_worker) == (1, 8)
    assert recipe.decode.engine_keys["max_num_tokens"] == 512, "an option of the worker"
    assert recipe.prefill.engine_keys["kv_cache_config"]["tokens_per_block"] == 64, (
        "the file of the ConfigMap"
    )
    assert recipe.decode.env == {"TLLM_LOG_LEVEL": "INFO", "UCX_TLS": "cuda_ipc,rc"}
    assert (recipe.model.path, recipe.routing.router_mode) == (
        "nvidia/Llama-3.3-70B-Instruct-FP4",
        "round-robin",
    )
    assert paths(recipe) >= {
        "ComputeDomain",
        "data.unused.yaml",
        "decode --publish-events-and-metrics",
        "GPU",
    }


def test_a_deployment_of_v1beta1(tmp_path: Path) -> None:
    file = tmp_path / "beta.yaml"
    file.write_text(V1BETA1)
    recipe = only(file)
    assert (recipe.routing.frontends, recipe.prefill.workers, recipe.decode.workers) == (2, 2, 1)
    assert recipe.decode.engine_keys == {
        "tensor_parallel_size": 4, "max_batch_size": 8, "max_num_tokens": 128, "max_seq_len": 21000,
        "kv_cache_config": {"dtype": "fp8"},
    }, "option < file < override"  # fmt: skip
    assert recipe.prefill.env == {"SHARED": "1"}


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        (
            "backendFramework: trtllm",
            "backendFramework: vllm",
            "spec.backendFramework: found vllm; expected trtllm, which the workers run",
        ),
        ("dynamo.trtllm]", "dynamo.sglang]", "found dynamo.sglang in Decode; expected dynamo.trtllm"),
        ("/config/decode.yaml", "/config/other.yaml", "which no ConfigMap of the file holds"),
        ("            - decode\n", "            - prefill\n", "found a second pool of prefill workers"),
        ('"512"', "many", "found --max-num-tokens many; expected a number"),
        ("    max_batch_size: 64\n", "    max_batch_size: [64\n", "decode.yaml: "),
    ],
)
def test_a_broken_deployment_is_named(before: str, after: str, part: str, changed: Changed) -> None:
    with pytest.raises(ConfigurationError, match=r"dynamo_graph.yaml, line \d+: ") as error:
        only(changed("dynamo_graph.yaml", (before, after)))
    assert part in str(error.value)
    assert "expected" in str(error.value).lower()


def test_a_deployment_with_workers_of_vllm() -> None:
    recipe = only(DATA / "vllm_graph.yaml")
    assert (recipe.engine, recipe.prefill.workers, recipe.decode.gpus_per_worker) == ("dynamo_vllm", 2, 4)
    assert recipe.prefill.engine_keys == {
        "tensor_parallel_size": 2, "kv_cache_dtype": "fp8", "max_model_len": 21000, "enforce_eager": True,
        "max_num_batched_tokens": 16384, "enable_prefix_caching": False,
        "kv_transfer_config": {"kv_connector": "NixlConnector", "kv_role": "kv_producer"},
    }, "without a comment's words, and without the connector where it is that of tune"  # fmt: skip
    assert recipe.decode.engine_keys["cudagraph_capture_sizes"] == [4, 1, 2]
    assert recipe.decode.engine_keys["compilation_config.custom_ops+"] == "+rms_norm"
    assert "kv_transfer_config" not in recipe.decode.engine_keys
    assert recipe.cluster["command_prefix"] == {"decode": ["numactl", "-m", "0,1"]}
    assert recipe.model.served_name == "meta-llama/Llama-3.3-70B-Instruct"


def test_a_worker_of_vllm_decodes_where_it_is_not_said_to_prefill(changed: Changed) -> None:
    replaced = (("type: decode", "type: worker"), ("                - --disaggregation-mode=decode\n", ""))
    recipe = only(changed("vllm_graph.yaml", *replaced))
    assert (recipe.prefill.workers, recipe.decode.workers) == (2, 1)


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
    assert recipe.prefill.engine_keys["enable_prefix_caching"] is False


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
    [('"12.5"', 12.5, False), ("3", 3.0, False), ("inf", None, True), ("0", None, True)],
)
def test_a_rate_of_srt_slurm_is_an_open_loop(
    rate: str, qps: float | None, listed: bool, changed: Changed
) -> None:
    replaced = ('concurrencies: "4x8x16"', f"concurrencies: [64]\n  req_rate: {rate}")
    recipe = only(changed("schema2.yaml", replaced))
    assert (recipe.rate.qps if recipe.rate else None) == qps
    assert ({"benchmark.req_rate", "benchmark.concurrencies"} <= paths(recipe)) == listed
    with pytest.raises(ConfigurationError, match=r"req_rate: found soon; expected queries/s, or inf"):
        only(changed("schema2.yaml", (replaced[0], "req_rate: soon")))


def test_rows_of_inferencex_lead_to_their_recipe() -> None:
    (recipe,) = read_recipes(f"{TABLE}:two_prefill", None, shipped_settings().hardware)
    assert (recipe.name, recipe.prefill.workers) == ("two_prefill", 2)
    assert recipe.cluster["container_image"] == "nvcr.io/example/runtime:1.4.0", "the row's"
    left_out = {part.path: part for part in recipe.left_out}
    assert "its config file, which is what runs, has 2" in left_out["prefill.num-worker"].reason
    assert {"llama-fp4-gb200-dynamo-trt.runner"} <= left_out.keys()
    assert not [path for path in left_out if "CONFIG_FILE" in left_out[path].value]


@pytest.mark.parametrize(
    ("selector", "part"),
    [
        ("absent", "CONFIG_FILE=recipes/trtllm/absent.yaml, which is not there; expected that file below"),
        ("*sglang", "framework: found dynamo-sglang; expected dynamo-trt"),
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
    assert "lengths of prompts and answers" in paths(fitted)
    for limit in ("max_seq_len", "max_num_tokens"):
        keys = {**recipe.prefill.engine_keys, limit: 101}
        shorter = replace(recipe, prefill=replace(recipe.prefill, engine_keys=keys))
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
