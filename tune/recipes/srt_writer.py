"""Write a trial as a recipe of srt-slurm, schema 2: the inverse of srt_slurm.py.

Source: NVIDIA/srt-slurm, docs/schema-reference.md (01aebde) and src/srtctl/backends (c88ef73).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tune.deploy.job_script import sbatch_options
from tune.engines.registry import file_reader
from tune.recipes.exported_recipe import ExportedRecipe, PlannedTrial, yaml_text
from tune.recipes.recipe import LeftOut
from tune.recipes.srt_cluster import OWN_OPTIONS
from tune.recipes.srt_rack import FRONTEND_NUMACTL, WORKER_NUMACTL
from tune.spec.dataset import RangeLengths
from tune.spec.load import Load
from tune.spec.model import WeightDtype
from tune.spec.split import ROLES, Role, place_workers
from tune.spec.trial import WorkerPool

_PRECISIONS: Mapping[WeightDtype, str] = {
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "fp8": "fp8",
    "int8": "int8",
    "bfloat16": "bf16",
    "float16": "fp16",
}
_ROLES: Mapping[Role, str] = {"aggregated": "agg"}
"""What a role is called, where srt-slurm has another name for it."""

_POLL_S = 10
"""Seconds between two questions whether the workers are ready, srt-slurm's own value."""


def write_srt_slurm(trial: PlannedTrial) -> ExportedRecipe:
    """Return a recipe that launches the engines, frontends and environment of a trial.

    Raises ConfigurationError for a trial of mock engines, and without an image.
    """
    facts, spec = trial.facts, trial.spec
    nodes = _role_nodes(trial)
    recipe: dict[str, Any] = {
        "schema": 2,
        "name": trial.name,
        "model": {
            "path": facts.model_path,
            "container": trial.image,
            "precision": _PRECISIONS[spec.model.weight_dtype],
        },
        "resources": {
            "gpu_type": spec.hardware.name.partition("-")[0],
            "gpus_per_node": spec.hardware.gpus_per_node,
        },
        "slurm": _stated(account=facts.account, partition=facts.partition, time_limit=facts.time_limit),
        "engine": _engine(trial),
        "roles": {
            _ROLES.get(pool.role, pool.role): _role(trial, pool, nodes[pool.role]) for pool in spec.pools
        },
        "frontend": _frontend(trial),
        **({"services": _dedicated_services()} if spec.split.head == "none" else {}),
        "dynamo": {"install": False, "request_plane": spec.stack.requests_over},
        "benchmark": _benchmark(trial),
        "health_check": {
            "max_attempts": max(round(facts.deadlines.ready_s / _POLL_S), 1),
            "interval_seconds": _POLL_S,
        },
        **_stated(
            extra_mount=[m if ":" in m else f"{m}:{m}" for m in facts.container_mounts] or None,
            srun_options=dict(_option(text) for text in facts.srun_options) or None,
            sbatch_directives=_directives(trial) or None,
        ),
    }
    file = f"{trial.name}.yaml"
    return ExportedRecipe({file: yaml_text(recipe)}, file, tuple(_left_out(trial)))


def _role_nodes(trial: PlannedTrial) -> dict[Role, int | str]:
    """Return the nodes of each role; idle ones are added to a role, so that the job has as many as the trial.

    Decode workers whose nodes all have prefill workers share them. srt-slurm knows no other sharing: then
    each role is given the nodes that its workers fill.
    """
    spec = trial.spec
    kept = int(spec.split.head == "none")
    if spec.split.aggregated_workers:
        return {"aggregated": spec.hardware.nodes - kept}
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split) or ()
    nodes = {role: {n for worker in placed if worker.role == role for n in worker.nodes} for role in ROLES}
    idle = spec.hardware.nodes - kept - len(nodes["prefill"] | nodes["decode"])
    if nodes["decode"] <= nodes["prefill"]:
        return {"prefill": len(nodes["prefill"]) + idle, "decode": "colocate"}
    return {"prefill": len(nodes["prefill"]), "decode": len(nodes["decode"]) + idle}


def _engine(trial: PlannedTrial) -> dict[str, Any]:
    engine: dict[str, Any] = {"type": trial.recipe_name}
    if not file_reader(trial.spec.stack.engine).has_file:
        # else srt-slurm gives aggregated workers the connector of KV caches, too
        return engine | ({"connector": None} if trial.spec.split.aggregated_workers else {})
    binds = all(trial.prefix(role) == WORKER_NUMACTL for role in trial.spec.split.roles)
    return engine | {
        "served_model_name": trial.spec.model.served_name,
        "publish_metrics": False,  # else srt-slurm adds an option that older workers do not have
        "numa_memory_bind": binds,
    }


def _role(trial: PlannedTrial, pool: WorkerPool, nodes: int | str) -> dict[str, Any]:
    role, engine, workers = pool
    keys = trial.engine_keys(role)
    if not file_reader(trial.spec.stack.engine).has_file:
        keys = {"served-model-name": trial.spec.model.served_name, **dict(_arguments(keys))}
    return {
        "nodes": nodes,
        "workers": workers,
        "gpus": engine.gpus,
        **_stated(env=trial.environment(role) or None),
        "args": keys,
    }


def _arguments(keys: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield arguments as srt-slurm hands them on: it leaves false flags out, and mappings are no JSON."""
    for name, value in keys.items():
        head, dot, rest = name.partition(".")
        flag = f"{head.replace('_', '-')}{dot}{rest}"
        if value is False:
            yield f"no-{flag}", True
        else:
            yield flag, json.dumps(value) if isinstance(value, Mapping) else value


def _frontend(trial: PlannedTrial) -> dict[str, Any]:
    frontends, split = trial.processes("frontend"), trial.spec.split
    placement = "dedicated" if split.head == "none" else "head"
    if split.head == "decode" and not split.aggregated_workers:
        placement = "first_decode"
    return {
        "type": "dynamo",
        "enable_multiple_frontends": len(frontends) > 1,
        **({"num_additional_frontends": len(frontends) - 1} if len(frontends) > 1 else {}),
        "args": dict(_router_options(trial.router_words())),
        **_stated(env=trial.environment("frontend") or None),
        **({"numa_bind": True} if trial.prefix("frontend") == FRONTEND_NUMACTL else {}),
        "placement": {"node": placement},
    }


def _router_options(words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the options of a frontend by their names, true for one without a value."""
    for word, following in pairwise((*words, "--")):
        if word.startswith("--"):
            yield word.removeprefix("--"), True if following.startswith("--") else following


def _dedicated_services() -> list[dict[str, Any]]:
    return [{"name": name, "type": name, "placement": {"node": "dedicated"}} for name in ("etcd", "nats")]


def _benchmark(trial: PlannedTrial) -> dict[str, Any]:
    """Return srt-slurm's load client at the trial's rate or for its users, else none.

    There is none for a search, and for lengths that it cannot send.
    """
    load = trial.spec.load
    inputs, outputs = load.dataset.inputs, load.dataset.outputs
    if load.mode == "capacity" or not (_as_sent(inputs) and _as_sent(outputs)):
        return {"type": "manual"}
    assert isinstance(inputs, RangeLengths)
    assert isinstance(outputs, RangeLengths)
    if inputs.range_ratio != outputs.range_ratio:
        return {"type": "manual"}
    return {
        "type": "sa-bench",
        "isl": inputs.tokens,
        "osl": outputs.tokens,
        "random_range_ratio": inputs.range_ratio,
        **_arrivals(load),
        "use_chat_template": load.api == "chat",
    }


def _arrivals(load: Load) -> dict[str, Any]:
    """Return the rate with its limit of requests at once, or the users with the prompts of each."""
    if load.concurrency is None:
        return {"req_rate": str(load.target_qps), "concurrencies": [load.client_concurrency]}
    prompts = math.ceil(load.expected_queries / load.concurrency)
    return {"req_rate": "inf", "concurrencies": [load.concurrency], "num_prompts_mult": prompts}


def _as_sent(lengths: Any) -> bool:
    """Return whether srt-slurm's client draws lengths by this rule. Source: sa_bench.py."""
    return isinstance(lengths, RangeLengths) and lengths.range_rule == "inferencex"


def _directives(trial: PlannedTrial) -> dict[str, str]:
    """Return the options of sbatch that srt-slurm has no key for."""
    facts, hardware = trial.facts, trial.spec.hardware
    options = sbatch_options(facts, hardware.nodes, hardware.gpus_per_node)
    kept = {"qos", "reservation", "exclusive", "exclude"}
    return {
        name: "" if value is True else str(value)
        for name, value in options.items()
        if name in kept or name not in OWN_OPTIONS
    }


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.removeprefix("--").partition("=")
    return name, value


def _stated(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _left_out(trial: PlannedTrial) -> Iterator[LeftOut]:
    """Yield what of the cluster the recipe does not say."""
    facts, roles = trial.facts, trial.spec.split.roles
    known = [*((role, WORKER_NUMACTL) for role in roles), ("frontend", FRONTEND_NUMACTL)]
    binds = len({trial.prefix(role) for role in roles}) == 1
    for role, prefix in known:
        found = trial.prefix(role)
        if found and (found != prefix or (role in roles and not binds)):
            reason = f"srt-slurm knows {' '.join(prefix)} alone, for all workers or none"
            yield LeftOut(f"cluster.command_prefix.{role}", " ".join(found), 0, reason)
    if facts.srun_env:
        reason = "srt-slurm sets the environment of srun itself"
        yield LeftOut("cluster.srun_env", ", ".join(facts.srun_env), 0, reason)
    if facts.load_stagger_s:
        reason = "srt-slurm starts workers of a node one after another, or all at once"
        yield LeftOut("cluster.load_stagger_s", f"{facts.load_stagger_s:g}", 0, reason)
    if trial.spec.stack.shares_files:
        yield LeftOut("stack.discovery", "file", 0, "srt-slurm's processes find each other in etcd")
    yield from trial.passed_on()
