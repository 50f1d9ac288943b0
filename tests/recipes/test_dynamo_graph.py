"""Test that deployments of Dynamo on Kubernetes are read."""

from __future__ import annotations

import pytest
from support.recipe_files import DATA, Changed, left_out_paths, only

from tune.errors import ConfigurationError


def test_a_deployment_of_dynamo_with_its_config_maps() -> None:
    recipe = only(DATA / "dynamo_graph.yaml")
    assert (recipe.name, recipe.rack.nodes, recipe.dynamo) == ("example-graph", 4, "1.3.1")
    assert (recipe.pools["prefill"].workers, recipe.pools["prefill"].gpus_per_worker) == (2, 4)
    assert (recipe.pools["decode"].workers, recipe.pools["decode"].gpus_per_worker) == (1, 8)
    assert recipe.pools["decode"].engine_keys["max_num_tokens"] == 512, "an option of the worker"
    assert recipe.pools["prefill"].engine_keys["kv_cache_config"]["tokens_per_block"] == 64, (
        "the file of the ConfigMap"
    )
    assert recipe.pools["decode"].env == {"TLLM_LOG_LEVEL": "INFO", "UCX_TLS": "cuda_ipc,rc"}
    assert (recipe.model.path, recipe.routing.router_mode) == (
        "nvidia/Llama-3.3-70B-Instruct-FP4",
        "round-robin",
    )
    assert left_out_paths(recipe) >= {
        "ComputeDomain",
        "data.unused.yaml",
        "decode --publish-events-and-metrics",
        "GPU",
    }


def test_a_deployment_of_v1beta1() -> None:
    recipe = only(DATA / "dynamo_components.yaml")
    assert (recipe.routing.frontends, recipe.pools["prefill"].workers, recipe.pools["decode"].workers) == (
        2,
        2,
        1,
    )
    assert recipe.pools["decode"].engine_keys == {
        "tensor_parallel_size": 4, "max_batch_size": 8, "max_num_tokens": 128, "max_seq_len": 21000,
        "kv_cache_config": {"dtype": "fp8"},
    }, "option < file < override"  # fmt: skip
    assert recipe.pools["prefill"].env == {"SHARED": "1"}


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
        ("    max_batch_size: 64\n", "    max_batch_size: [64\n", "line 20: expected ',' or ']'"),
        (
            "    max_batch_size: 64\n",
            "    max_batch_size: 64\n    max_batch_size: 32\n",
            "line 20: data.decode.yaml",
        ),
        (
            "    max_batch_size: 64\n",
            "    max_num_tokens: '512'\n",
            "line 19: data.decode.yaml.max_num_tokens: found",
        ),
    ],
)
def test_a_broken_deployment_is_named(before: str, after: str, part: str, changed: Changed) -> None:
    with pytest.raises(ConfigurationError, match=r"dynamo_graph.yaml, line \d+: ") as error:
        only(changed("dynamo_graph.yaml", (before, after)))
    assert part in str(error.value)
    assert "expected" in str(error.value).lower()


def test_a_deployment_with_workers_of_vllm() -> None:
    recipe = only(DATA / "vllm_graph.yaml")
    assert (recipe.engine, recipe.pools["prefill"].workers, recipe.pools["decode"].gpus_per_worker) == (
        "dynamo_vllm",
        2,
        4,
    )
    assert recipe.pools["prefill"].engine_keys == {
        "tensor_parallel_size": 2, "kv_cache_dtype": "fp8", "max_model_len": 21000, "enforce_eager": True,
        "max_num_batched_tokens": 16384, "enable_prefix_caching": False,
        "kv_transfer_config": {"kv_connector": "NixlConnector", "kv_role": "kv_producer"},
    }, "without a comment's words, and without the connector where it is that of tune"  # fmt: skip
    assert recipe.pools["decode"].engine_keys["cudagraph_capture_sizes"] == [4, 1, 2]
    assert recipe.pools["decode"].engine_keys["compilation_config.custom_ops+"] == "+rms_norm"
    assert "kv_transfer_config" not in recipe.pools["decode"].engine_keys
    assert recipe.cluster["command_prefix"] == {"decode": ["numactl", "-m", "0,1"]}
    assert recipe.model.served_name == "meta-llama/Llama-3.3-70B-Instruct"


def test_workers_without_replicas_are_named(changed: Changed) -> None:
    file = changed("vllm_graph.yaml", ("replicas: 2", "replicas: 0"))
    with pytest.raises(ConfigurationError, match=r"line \d+: .*: found 0 replicas of Prefill; expected 1 or"):
        only(file)


def test_a_worker_of_vllm_decodes_where_it_is_not_said_to_prefill(changed: Changed) -> None:
    replaced = (("type: decode", "type: worker"), ("                - --disaggregation-mode=decode\n", ""))
    recipe = only(changed("vllm_graph.yaml", *replaced))
    assert (recipe.pools["prefill"].workers, recipe.pools["decode"].workers) == (2, 1)


MOUNTED = (
    "{name: engine-config, mountPath: /config, readOnly: true}",
    "{name: engine-config, configMap: {name: engines}}\n    Decode",
)


@pytest.mark.parametrize(
    ("mount", "items", "is_found"),
    [
        ("mountPath: /config/prefill.yaml, subPath: prefill.yaml", "", True),
        ("mountPath: /config/prefill.yaml, subPath: decode.yaml", "", False),
        ("mountPath: /config", "items: [{key: small.yaml, path: prefill.yaml}]", True),
        ("mountPath: /config", "items: [{key: small.yaml, path: other.yaml}]", None),
        ("mountPath: /elsewhere", "", None),
        ("mountPath: /config/other.yaml, subPath: prefill.yaml", "", None),
    ],
)
def test_files_of_a_config_map_are_found_where_they_are_mounted(
    mount: str, items: str, is_found: bool | None, changed: Changed
) -> None:
    """`is_found` is None where nothing is there, false where another file is."""
    volume = f"{{name: engine-config, configMap: {{name: engines, {items}}}}}\n    Decode"
    file = changed(
        "dynamo_graph.yaml",
        (MOUNTED[0], f"{{name: engine-config, {mount}}}"),
        (MOUNTED[1], volume),
        ("  prefill.yaml: |", "  small.yaml: |" if items else "  prefill.yaml: |"),
    )
    if is_found is None:
        with pytest.raises(ConfigurationError, match="which no ConfigMap of the file holds"):
            only(file)
    else:
        assert (only(file).pools["prefill"].engine_keys["tensor_parallel_size"] == 4) is is_found


def test_whatever_else_config_maps_and_frontends_hold_is_listed(changed: Changed) -> None:
    file = changed(
        "dynamo_graph.yaml",
        ("\ndata:\n", "\n  labels: {team: x}\nimmutable: true\nbinaryData: {blob: YQ==}\ndata:\n"),
        ("--router-mode, round-robin]", "--router-mode, round-robin, --router-temperature, '0.5']"),
        ("    Prefill:\n", "    Epp:\n      componentType: epp\n    Prefill:\n"),
    )
    file.write_text(
        f"{file.read_text()}---\nkind: ConfigMap\nmetadata: {{name: other}}\nbinaryData: {{table: YQ==}}\n"
    )
    left_out = {(part.path, part.line) for part in only(file).left_out}
    text = file.read_text().splitlines()
    assert left_out >= {
        ("metadata.labels", 1 + text.index("  labels: {team: x}")),
        ("immutable", 1 + text.index("immutable: true")),
        ("binaryData", 1 + text.index("binaryData: {blob: YQ==}")),
        ("binaryData", 1 + text.index("binaryData: {table: YQ==}")),
    }
    assert {path for path, _ in left_out} >= {"frontend --router-temperature", "component Epp"}
    assert "metadata.name" not in {path for path, _ in left_out}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("kind: DynamoGraphDeployment\n", "found a second DynamoGraphDeployment; expected one in a file"),
        (
            "kind: ConfigMap\nmetadata: {name: engines}\n",
            "metadata.name: found engines; expected a name that no ConfigMap before it has",
        ),
    ],
)
def test_a_second_object_of_a_name_is_refused(more: str, message: str, changed: Changed) -> None:
    file = changed("dynamo_graph.yaml")
    file.write_text(f"{file.read_text()}---\n{more}")
    with pytest.raises(ConfigurationError, match=r"dynamo_graph\.yaml, line 10\d: ") as error:
        only(file)
    assert message in str(error.value)
