"""Write a trial as a deployment of Dynamo on Kubernetes: the inverse of dynamo_graph.py.

Source: ai-dynamo/dynamo, reference of DynamoGraphDeployment, nvidia.com/v1beta1 (1.6), and its templates
(dynamo/profiler/templates/dgd of the wheel ai-dynamo 1.6.1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tune.engines.registry import engine_of, file_reader
from tune.manifest.process import PLAN_DIR
from tune.recipes.dynamo_graph import KIND
from tune.recipes.exported_recipe import ExportedRecipe, PlannedTrial, yaml_text
from tune.recipes.kubernetes_pod import ESCAPED
from tune.recipes.recipe import LeftOut
from tune.spec.split import Role
from tune.spec.trial import WorkerPool

_TYPES: Mapping[Role, str] = {"aggregated": "worker"}
"""What the type of a component is called, where that is not its role."""

_PLAN = "/plan"
"""Folder in the containers where the files of the engines are mounted. Chosen here."""


def write_dynamo_graph(trial: PlannedTrial) -> ExportedRecipe:
    """Return a deployment that launches the engines, frontends and environment of a trial.

    Raises ConfigurationError for a trial of mock engines, and without an image.
    """
    maps = _config_maps(trial)
    deployment = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": KIND,
        "metadata": {"name": trial.name},
        "spec": {
            "backendFramework": trial.recipe_name,
            "components": [_frontend(trial), *(_workers(trial, pool, maps) for pool in trial.spec.pools)],
        },
    }
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        for name, data in maps.values()
    ]
    text = "---\n".join(yaml_text(content) for content in (*objects, deployment))
    file = f"{trial.name}.yaml"
    return ExportedRecipe({file: text}, file, tuple(_left_out(trial)))


def _config_maps(trial: PlannedTrial) -> dict[str, tuple[str, dict[str, str]]]:
    """Return name and content of a ConfigMap for each folder of files that the engines read."""
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for path, text in engine_of(trial.spec).files(trial.spec).items():
        folders[str(PurePosixPath(path).parent)][PurePosixPath(path).name] = text
    return {
        str(PurePosixPath(_PLAN, folder)): (
            f"{trial.name}-{'engines' if folder == '.' else folder.replace('/', '-')}",
            data,
        )
        for folder, data in folders.items()
    }


def _frontend(trial: PlannedTrial) -> dict[str, Any]:
    args = [*trial.router_words(), *_request_plane(trial)]
    container = _container(trial, "frontend", "dynamo.frontend", args)
    return _component("Frontend", "frontend", trial.spec.split.frontends, {"containers": [container]})


def _workers(trial: PlannedTrial, pool: WorkerPool, maps: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    role, engine, replicas = pool
    nodes = -(-engine.gpus // trial.spec.hardware.gpus_per_node)
    module = f"dynamo.{trial.recipe_name}"
    argv = trial.processes(role)[0].argv
    args = [word.replace(PLAN_DIR, _PLAN) for word in argv[argv.index(module) + 1 :]]
    container = _container(trial, role, module, [*args, *_request_plane(trial)])
    container["resources"] = {"limits": {"nvidia.com/gpu": str(engine.gpus // nodes)}}
    pod: dict[str, Any] = {"containers": [container]}
    if maps:
        mounts = [(name, folder) for folder, (name, _) in maps.items()]
        container["volumeMounts"] = [{"name": name, "mountPath": folder} for name, folder in mounts]
        pod["volumes"] = [{"name": name, "configMap": {"name": name}} for name, _ in mounts]
    component = _component(role.capitalize(), _TYPES.get(role, role), replicas, pod)
    return component | ({"multinode": {"nodeCount": nodes}} if nodes > 1 else {})


def _component(name: str, kind: str, replicas: int, pod: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "type": kind, "replicas": replicas, "podTemplate": {"spec": pod}}


def _container(trial: PlannedTrial, role: str, module: str, args: list[str]) -> dict[str, Any]:
    env = trial.environment(role)
    workdir = trial.facts.container_workdir
    return {
        "name": "main",
        "image": trial.image,
        **({"workingDir": workdir} if workdir else {}),
        "command": [_escaped(word) for word in (*trial.prefix(role), "python3", "-m", module)],
        "args": [_escaped(word) for word in args],
        **({"env": [{"name": k, "value": _escaped(v)} for k, v in env.items()]} if env else {}),
    }


def _request_plane(trial: PlannedTrial) -> tuple[str, ...]:
    """Return the option that says how requests reach the workers, which Dynamo has since 1.0."""
    stack = trial.spec.stack
    return ("--request-plane", stack.requests_over) if stack.generation == "dynamo_v1" else ()


def _escaped(text: str) -> str:
    return text.replace("$(", ESCAPED)


def _left_out(trial: PlannedTrial) -> Iterator[LeftOut]:
    """Yield what of the cluster the deployment does not say."""
    facts, stack = trial.facts, trial.spec.stack
    yield LeftOut("cluster.model_path", facts.model_path, 0, "mount it yourself: volumes are your cluster's")
    for name in ("container_mounts", "srun_options", "srun_env", "extra_sbatch"):
        if found := getattr(facts, name):
            yield LeftOut(f"cluster.{name}", ", ".join(found), 0, "Slurm's own")
    if facts.load_stagger_s:
        yield LeftOut("cluster.load_stagger_s", f"{facts.load_stagger_s:g}", 0, "pods start at once")
    if stack.generation != "dynamo_v1":
        yield LeftOut("stack", stack.name, 0, "Dynamo's operator needs an image of Dynamo 1.x")
    if file_reader(stack.engine).has_file:
        reason = "the operator starts the ranks of a worker"
        yield LeftOut("cluster.mpi", facts.mpi, 0, reason)
    yield from trial.passed_on()
