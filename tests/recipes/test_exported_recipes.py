"""Test that the other program reads what is exported, and that it imports again as the trial that it was."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import yaml
from support.recipe_files import DATA, only
from support.recipe_schemas import ConfigMap, DynamoGraph, SrtRecipe

from tune.cli.imported_recipe import planned, written_recipe
from tune.cli.trial_export import Target, VerifiedExport, exported_trial
from tune.config import compose_overrides, shipped_settings
from tune.errors import ConfigurationError
from tune.recipes.formats import read_recipes
from tune.recipes.kept_settings import read_kept
from tune.spec.settings import Settings

TARGETS = get_args(Target)
IMAGE = "cluster.container_image=nvcr.io/example/runtime:1.6.1"
NUMACTL = "[numactl,-m,'0,1']"
TRIALS: dict[str, tuple[str, ...]] = {
    "reference": (),
    "vLLM": ("stack=dynamo_vllm", "prefill=vllm", "decode=vllm"),
    "vLLM on two GPUs, random weights": (
        *("stack=dynamo_vllm", "cluster=local", "hardware=h200_x2", "split=1p1d"),
        *("model=llama3_1_70b_24layers", "prefill=vllm_one_gpu", "decode=vllm_one_gpu", "load=fixed"),
        *("load.dataset.inputs.tokens=512", "+decode.extra.compilation_config={cudagraph_mode: PIECEWISE}"),
    ),
    "environment, prefix, frontends, a rate of its own": (
        *("stack=dynamo_v1", "split.frontends=4", "stack.router_mode=kv", "+stack.env.DYN_LOG=warn"),
        *("+prefill.env.UCX_TLS='rc,$(x)'", "+decode.env.HF_TOKEN=null"),
        *(f"cluster.command_prefix.prefill={NUMACTL}", f"cluster.command_prefix.decode={NUMACTL}"),
        *("load=fixed", "load.dataset.inputs.range_rule=inferencex", "load.dataset.inputs.range_ratio=0.8"),
        *("load.target_qps=12.5", "slo.ttft_p99_s=null", "slo.latency_p95_s=30"),
    ),
    "workers that share nodes, a head without any": (
        *("stack=dynamo_v1", "hardware.nodes=8", "split.prefill_workers=5", "split.decode_workers=3"),
        *("prefill.tensor_parallel_size=2", "decode.tensor_parallel_size=2", "split.head=none"),
        "stack.request_plane=nats",
    ),
    "a capacity search, large decode workers, idle nodes": (
        *("stack=dynamo_v1", "load.mode=capacity", "decode.tensor_parallel_size=8", "split.head=decode"),
        *("split.prefill_workers=7", "split.decode_workers=4", "prefill.scheduler_config=null"),
    ),
    "aggregated workers": ("stack=dynamo_v1", "split=aggregated"),
    "aggregated workers over two nodes, idle nodes, a head without any": (
        *("stack=dynamo_v1", "split=aggregated", "split.aggregated_workers=7", "split.head=none"),
        *("aggregated.tensor_parallel_size=8", "+aggregated.env.UCX_TLS=rc", "+aggregated.env.HF_TOKEN=null"),
        *(f"+cluster.command_prefix.aggregated={NUMACTL}", "split.frontends=2"),
    ),
    "aggregated workers of vLLM": (
        *("stack=dynamo_vllm", "split=aggregated", "aggregated=vllm", "split.head=decode"),
        "split.aggregated_workers=5",
    ),
    "users of a closed loop": (
        *("stack=dynamo_v1", "load=fixed", "load.mode=concurrency", "load.concurrency=48"),
        *("load.target_qps=null", "load.dataset.inputs.range_rule=inferencex"),
        *("load.dataset.inputs.range_ratio=0.8", "slo.ttft_p99_s=null"),
    ),
    "users of a closed loop, aggregated workers": (
        *("stack=dynamo_v1", "split=aggregated", "load.mode=concurrency", "load.concurrency=2500"),
        *("load.target_qps=null", "load.client_concurrency=4000", "load.min_queries=60000"),
    ),
}
"""Overrides of the trials that go out and come back."""


@cache
def settings(name: str) -> Settings:
    return compose_overrides([*TRIALS[name], IMAGE]).settings


@cache
def exported(name: str, target: Target) -> VerifiedExport:
    composed = settings(name)
    rate_qps = None if composed.load.is_closed_loop else 10.0
    return exported_trial(composed.trial_spec, composed.cluster, target, rate_qps)


def written(export: VerifiedExport, folder: Path) -> Path:
    """Write the files of an export; return the file or folder to import."""
    for name, content in export.recipe.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / export.recipe.main if len(export.recipe.files) == 1 else folder


def text_of(export: VerifiedExport) -> str:
    text = export.recipe.files[export.recipe.main]
    assert isinstance(text, str)
    return text


@pytest.mark.slow  # composes three configurations each
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", TRIALS)
def test_what_is_exported_imports_as_the_same_trial(name: str, target: Target) -> None:
    """The export has imported itself; here only its own answer is looked at."""
    assert exported(name, target).differences == ()


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("target", TARGETS)
def test_the_answer_on_the_way_back_is_true(target: Target, tmp_path: Path) -> None:
    name = "environment, prefix, frontends, a rate of its own"
    file = written(exported(name, target), tmp_path)
    (recipe,) = read_recipes(str(file), None, shipped_settings().hardware)
    found, _ = planned(*written_recipe(recipe, ()))
    assert not [part.path for part in recipe.left_out if part.path.startswith(("engine", "roles", "dynamo."))]
    wanted = settings(name)
    assert found.trial_spec == wanted.trial_spec
    assert found.trial_spec.trial_id == wanted.trial_spec.trial_id
    assert found.cluster.command_prefix == wanted.cluster.command_prefix


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize(
    "file",
    [
        *("schema2.yaml", "trtllm_slurm.yaml", "dynamo_graph.yaml", "vllm_graph.yaml"),
        *("aggregated.yaml", "aggregated_roles.yaml", "aggregated_graph.yaml"),
    ],
)
def test_recipes_of_others_go_round(file: str) -> None:
    composed, _ = planned(*written_recipe(only(DATA / file), ()))
    facts = composed.cluster.model_copy(update={"container_image": "a/b:1"})
    rate_qps = composed.load.target_qps
    for target in TARGETS:
        assert exported_trial(composed.trial_spec, facts, target, rate_qps).differences == (), target


@pytest.mark.slow  # composes configurations
def test_what_was_changed_by_hand_counts(tmp_path: Path) -> None:
    """A value that the format states is read from it, not from the comments."""
    name = "reference"
    for target in TARGETS:
        export = exported(name, target)
        file = written(export, tmp_path / target)
        path = tmp_path / target / ("prefill.yaml" if target == "sbatch" else export.recipe.main)
        text = path.read_text()
        assert "max_num_tokens: 4096" in text
        path.write_text(text.replace("max_num_tokens: 4096", "max_num_tokens: 8192", 1))
        (recipe,) = read_recipes(str(file), None, shipped_settings().hardware)
        found, _ = planned(*written_recipe(recipe, ()))
        assert found.prefill.token_budget == 8192, target
        assert found.decode == settings(name).decode


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("name", TRIALS)
def test_a_recipe_of_srt_slurm_has_its_schema(name: str) -> None:
    spec, content = settings(name).trial_spec, yaml.safe_load(text_of(exported(name, "srt-slurm")))
    recipe = SrtRecipe.model_validate_json(json.dumps(content))
    assert getattr(recipe.engine, "publish_metrics", False) is False, "as workers of a plan"
    assert recipe.dynamo.request_plane == spec.stack.requests_over
    assert [(role.workers, role.gpus) for role in recipe.roles.values()] == [
        (pool.workers, pool.engine.gpus) for pool in spec.pools
    ]
    nodes = [role.nodes for role in recipe.roles.values() if isinstance(role.nodes, int)]
    if "share nodes" not in name:  # what srt-slurm shares, and what it does not
        assert sum(nodes) + (spec.split.head == "none") == spec.hardware.nodes


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("name", TRIALS)
def test_a_deployment_of_dynamo_has_its_schema(name: str) -> None:
    spec = settings(name).trial_spec
    *maps, graph = yaml.safe_load_all(text_of(exported(name, "dgd")))
    deployment = DynamoGraph.model_validate_json(json.dumps(graph))
    named = {ConfigMap.model_validate_json(json.dumps(found)).metadata.name for found in maps}
    by_type = {component.type: component for component in deployment.spec.components}
    assert by_type["frontend"].replicas == spec.split.frontends
    assert len(by_type) == 1 + len(spec.pools)
    for role, engine, workers in spec.pools:
        component = by_type["worker" if role == "aggregated" else role]
        pod, nodes = component.podTemplate.spec, component.multinode
        per_pod = int(pod.containers[0].resources["limits"]["nvidia.com/gpu"])
        assert per_pod * (nodes.nodeCount if nodes else 1) == engine.gpus
        assert component.replicas == workers
        assert ("--disaggregation-mode" in pod.containers[0].args) == (role != "aggregated")
        assert {volume.configMap.name for volume in pod.volumes} == named


@pytest.mark.slow  # composes configurations
def test_what_a_format_has_no_place_for_is_named() -> None:
    export = exported("environment, prefix, frontends, a rate of its own", "srt-slurm")
    assert {"slo", "decode.env.HF_TOKEN"} <= set(export.unstated)
    assert [part.path for part in export.recipe.left_out] == ["decode.env.HF_TOKEN"]
    benchmark = yaml.safe_load(text_of(export))["benchmark"]
    assert (benchmark["req_rate"], benchmark["concurrencies"]) == ("12.5", [2048])
    odd = compose_overrides(["stack=dynamo_v1", IMAGE, "cluster.command_prefix.decode=[nice]"]).settings
    left_out = exported_trial(odd.trial_spec, odd.cluster, "srt-slurm", 1.0).recipe.left_out
    assert [part.path for part in left_out] == ["cluster.command_prefix.decode"]
    assert "[nice" not in text_of(exported_trial(odd.trial_spec, odd.cluster, "srt-slurm", 1.0))


EXAMPLE_MOUNTS = "cluster.container_mounts=[/your/a:/a,/mine]"
CARRIED = {
    "sbatch": ["partition", "account", "model_path", "container_image", "container_mounts"],
    "srt-slurm": ["partition", "account", "model_path", "container_image", "container_mounts"],
    "dgd": ["model_path", "container_image"],
}
"""Facts of the example that each format has a place for."""


@pytest.mark.slow  # composes configurations
@pytest.mark.parametrize("target", TARGETS)
def test_placeholders_that_a_file_carries_are_named_at_its_top(target: Target) -> None:
    template = "+decode.extra.chat_template=/path/to/template.jinja"
    image = "cluster.container_image=/path/to/your.sqsh"
    example = compose_overrides([EXAMPLE_MOUNTS, image, template, "stack=dynamo_v1"]).settings
    export = exported_trial(example.trial_spec, example.cluster, target, 1.0)
    named = [text.partition(": ") for text in export.recipe.placeholders]
    assert [name.removeprefix("cluster.") for name, _, _ in named] == [
        *CARRIED[target],
        "decode.extra.chat_template",
    ]
    lines = text_of(export).splitlines()
    top = lines[1:] if target == "sbatch" else lines
    assert [line.removeprefix("#   ") for line in top[1 : len(named) + 1]] == list(export.recipe.placeholders)
    assert not top[len(named) + 1].startswith("#   ")
    assert export.differences == ()
    own = {"partition": "batch", "account": None, "model_path": "/m", "container_image": "a/b:1"}
    mine = example.cluster.model_copy(update=own | {"container_mounts": ("/m",)})
    bare = exported_trial(settings("reference").trial_spec, mine, target, 1.0)
    assert bare.recipe.placeholders == ()
    assert "laceholder" not in text_of(bare)


@pytest.mark.slow  # composes a configuration
def test_what_no_other_program_launches_is_refused() -> None:
    mocked = compose_overrides(["stack=dynamo_v1_mocker", "cluster=local", IMAGE]).settings
    with pytest.raises(ConfigurationError, match=r"found dynamo_mocker.*export\.to=sbatch takes it"):
        exported_trial(mocked.trial_spec, mocked.cluster, "dgd", 1.0)
    assert exported_trial(mocked.trial_spec, mocked.cluster, "sbatch", 1.0).differences is None
    bare = settings("reference")
    with pytest.raises(ConfigurationError, match=r"container_image: found null.*container_image=IMAGE"):
        exported_trial(bare.trial_spec, bare.cluster.model_copy(update={"container_image": None}), "dgd", 1.0)


@pytest.mark.parametrize(
    "comments",
    ["#| trial_id: t1\n", "#| [\n", "#| trial_id: t1\n#| groups: {modle: {}}\n#| over: {}\n", "#| 3\n"],
)
def test_damaged_comments_are_named_with_their_line(comments: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"name: x\n\n{comments}")
    with pytest.raises(ConfigurationError, match=r"recipe\.yaml, line 3: found comments that begin with #\|"):
        read_kept(file)
    file.write_text("name: x\n")
    assert read_kept(file) is None


@pytest.mark.slow  # composes a configuration
@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        ("-m dynamo.trtllm", "-m dynamo.sglang", "a worker that runs dynamo.sglang; expected dynamo.trtllm"),
        ("step prefill_w", "start prefill_w", "found no prefill workers"),
        ('--nodelist="$(nodelist 0)"', "", "expected step NAME VARIABLES srun OPTIONS COMMAND"),
    ],
)
def test_a_job_that_was_broken_by_hand_is_named(before: str, after: str, part: str, tmp_path: Path) -> None:
    folder = written(exported("reference", "sbatch"), tmp_path)
    job = folder / "job.sbatch"
    assert before in job.read_text()
    job.write_text(job.read_text().replace(before, after))
    with pytest.raises(ConfigurationError, match=r"job\.sbatch, line \d+: ") as error:
        read_recipes(str(folder), None, shipped_settings().hardware)
    assert part in str(error.value)


@pytest.mark.slow  # composes a configuration
def test_an_argument_of_a_job_that_is_no_number_is_named(tmp_path: Path) -> None:
    folder = written(exported("vLLM", "sbatch"), tmp_path)
    job = folder / "job.sbatch"
    job.write_text(re.sub(r"--tensor-parallel-size \d+", "--tensor-parallel-size two", job.read_text()))
    with pytest.raises(
        ConfigurationError, match=r"job\.sbatch, line \d+: tensor_parallel_size: found the text"
    ):
        read_recipes(str(folder), None, shipped_settings().hardware)
