"""Read the configuration of TensorRT-LLM's own benchmark on Slurm.

Source: NVIDIA/TensorRT-LLM, examples/disaggregated/slurm/benchmark (config.yaml, submit.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune.engines.registry import file_reader
from tune.recipes.document import Document, Section
from tune.recipes.engine_keys import required_keys
from tune.recipes.recipe import ClosedLoop, LeftOut, Lengths, Lines, Pool, Rack, Recipe, Routing, ServedModel
from tune.recipes.recipe_environment import merged, words_as_environment
from tune.recipes.recipe_load import read_closed_loop
from tune.spec.split import ROLES, Role

_ENGINE = "trtllm"
_SERVERS: Mapping[Role, str] = {"prefill": "ctx", "decode": "gen"}
"""What TensorRT-LLM calls the workers of each role: context and generation servers."""

_NUMACTL = ("numactl", "-m", "0,1")
"""What stands before a worker's command where memory is bound. Source: start_worker.sh (0249976)."""

_REASONS: Mapping[str, str] = {
    "slurm": "a fact of the cluster; yours stands in your own file of facts",
    "benchmark": "the load client is tune's own; choose its load with load=",
    "benchmark.concurrency_list": "a closed loop needs lengths",
    "environment": "tune runs the software of the image",
    "profiling": "tune profiles nothing",
    "accuracy": "tune measures no accuracy",
}


def is_trtllm_slurm(document: Document) -> bool:
    """Return whether a document has the outline of TensorRT-LLM's benchmark on Slurm."""
    return isinstance(document.content, dict) and {"worker_config", "hardware"} <= document.content.keys()


def read_trtllm_slurm(document: Document) -> Recipe:
    """Return the recipe of a configuration. Raises ConfigurationError for what it has to have."""
    root = document.root()
    slurm, environment = root.section("slurm"), root.section("environment")
    pools = {role: _pool(root, environment, role) for role in ROLES}
    per_node = root.section("hardware", required=True).required_number_of("gpus_per_node")
    server_env = words_as_environment(environment, "server_env_var")
    cluster, model = _cluster(slurm, environment), _model(environment)
    if slurm.flag("numa_bind", default=False):
        cluster["command_prefix"] = {role: list(_NUMACTL) for role in ROLES}
    benchmark = root.section("benchmark")
    lengths = _lengths(benchmark)
    arrivals = _closed_loop(benchmark, pools["decode"].workers) if lengths else None
    root.section("profiling").accept("nsys_on", False)
    root.section("accuracy").accept("enable_accuracy_test", False)
    served_by = LeftOut("server", "trtllm-serve disaggregated", 0, "tune serves with Dynamo's frontend")
    return Recipe(
        name=_stated(slurm, "job_name") or Path(document.file).stem,
        origin=f"{document.file}, TensorRT-LLM's benchmark on Slurm",
        engine=_ENGINE,
        pools=pools,
        rack=Rack(sum(_nodes(pool, per_node) for pool in pools.values()), per_node, None, head="decode"),
        routing=Routing(env=server_env),
        lengths=lengths,
        arrivals=arrivals,
        model=model,
        cluster=cluster,
        dynamo=None,
        left_out=(*document.left_out(_REASONS), served_by),
        stated=(Lines(document.file),),
    )


def _pool(root: Section, environment: Section, role: Role) -> Pool:
    server = _SERVERS[role]
    workers = root.section("hardware", required=True).required_number_of(f"num_{server}_servers")
    section = root.section("worker_config", required=True)
    keys, stated = required_keys(section, server, _ENGINE), root.document.lines_of((*section.place, server))
    shared = words_as_environment(environment, "worker_env_var")
    own = words_as_environment(environment, f"{server}_worker_env_var")
    return Pool(workers, file_reader(_ENGINE).gpus_of_keys(keys), keys, merged(shared, own), (stated,))


def _nodes(pool: Pool, per_node: int) -> int:
    """Return the nodes of a pool; the generation servers have the first ones. Source: submit.py."""
    return math.ceil(pool.workers * pool.gpus_per_worker / per_node)


def _cluster(slurm: Section, environment: Section) -> dict[str, Any]:
    mounts = _stated(environment, "container_mount")
    stated = {
        "model_path": _stated(environment, "model_path"),
        "container_image": _stated(environment, "container_image"),
        "container_mounts": mounts.split(",") if mounts else None,
        "time_limit": _stated(slurm, "job_time"),
        "extra_sbatch": (_stated(slurm, "extra_args") or "").split() or None,
    }
    return {name: value for name, value in stated.items() if value is not None}


def _stated(section: Section, key: str) -> str | None:
    """Return the text under `key`; None where it is a placeholder such as `<account>`, which is left out."""
    text = section.text(key)
    if text and text.startswith("<"):
        section.leave(key, "a placeholder")
        return None
    return text


def _model(environment: Section) -> ServedModel:
    path = environment.required_text("model_path")
    return ServedModel(path=path.rstrip("/"))


def _closed_loop(benchmark: Section, generation_servers: int) -> ClosedLoop | None:
    """Return the closed loop, whose users are stated for one generation server. Source: run_benchmark.sh."""
    return read_closed_loop(benchmark, "concurrency_list", rounds="multi_round", servers=generation_servers)


def _lengths(benchmark: Section) -> Lengths | None:
    prompts, answers = benchmark.count("input_length"), benchmark.count("output_length")
    if prompts is None or answers is None:
        return None
    share = benchmark.anything("benchmark_ratio")
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise benchmark.wrong("benchmark_ratio", "a number from 0 to 1")
    return Lengths(prompts, answers, 1.0 if share is None else float(share))
