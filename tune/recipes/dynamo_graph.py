"""Read Dynamo's recipes for Kubernetes: a DynamoGraphDeployment with the ConfigMaps of its engines.

Sources: ai-dynamo/dynamo, recipes/ and the reference of its API (nvidia.com/v1alpha1: services; v1beta1:
components).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tune.engines.registry import file_reader
from tune.recipes.document import Document, Section
from tune.recipes.dynamo_command import DynamoCommand, keys_of_worker, other_options, read_command
from tune.recipes.engine_keys import require_shapes
from tune.recipes.kubernetes_pod import Pod, read_pod
from tune.recipes.recipe import LeftOut, Lines, Pool, Rack, Recipe, Routing, ServedModel, version_of_image
from tune.recipes.yaml_documents import read_inner
from tune.spec.engine_table import ENGINES, engine_in_recipes, recipe_names
from tune.spec.environment import looks_secret, without_secrets
from tune.spec.split import ROLES, Role

KIND = "DynamoGraphDeployment"
_KUBERNETES = "Kubernetes' own; tune launches with Slurm"
_REASONS: Mapping[str, str] = {"metadata": _KUBERNETES, "spec": _KUBERNETES}
_TAKEN_OPTIONS = (
    "--model-path",
    "--model",
    "--served-model-name",
    "--disaggregation-mode",
    "--request-plane",
)
_TAKEN_OF_FRONTEND = ("--router-mode", "--request-plane")
_FRONTEND = "dynamo.frontend"
_DECODES_UNSAID = "dynamo.vllm"
"""Program whose workers decode where they are not said to prefill. Source: Dynamo, components/src/dynamo/
vllm/args.py before 1.0, and deployments of that time (planner/tests/manual/perf_test_configs)."""

_AGGREGATED_MODES = ("agg", "prefill_and_decode")
"""What --disaggregation-mode calls workers that do both. Source: ai-dynamo 1.6.1, dynamo/common/constants.py
and dynamo/trtllm/constants.py."""

_EITHER = "prefill and decode workers, or aggregated ones alone"
_OF_A_SHELL = frozenset(";&|<>=`$")
_EXPECTED_ENGINE = "the engines of which tune reads recipes"
_NODE_SIZES = (4, 8)
"""GPUs of a node of the racks that tune knows."""


@dataclass(frozen=True)
class _Worker:
    """Hold the pods of one role."""

    pod: Pod
    command: DynamoCommand
    pool: Pool
    gpus_per_pod: int


def is_dynamo_graph(documents: Sequence[Document]) -> bool:
    """Return whether one of the documents of a file is a deployment of Dynamo."""
    return any(isinstance(d.content, dict) and d.content.get("kind") == KIND for d in documents)


def read_dynamo_graph(documents: Sequence[Document]) -> Recipe:
    """Return the recipe of the deployment in a file.

    Raises ConfigurationError for another engine, workers without a role, and an engine's file that no
    ConfigMap of the file has.
    """
    document = _deployment(documents)
    root = document.root()
    for key in ("apiVersion", "kind"):
        root.anything(key)
    name = root.section("metadata", required=True).required_text("name")
    spec = root.section("spec", required=True)
    pods = [read_pod(part, spec) for part in _parts(spec)]
    commands = {pod.name: read_command(pod.container, pod.env) for pod in pods}
    engine = _engine(document, pods, commands)
    if "backendFramework" in spec and engine_in_recipes(spec.required_text("backendFramework")) != engine:
        raise spec.wrong("backendFramework", f"{ENGINES[engine].recipe_name}, which the workers run")
    roles = _roles(document, pods, commands)
    workers = _workers(engine, pods, commands, roles, _config_maps(documents))
    answering = workers["aggregated" if "aggregated" in workers else "decode"]
    routing, command = _routing(pods, commands), answering.command
    for pod in pods:
        pod.container.accept("image", answering.pod.container.content.get("image"))
    model = ServedModel(
        path=command.options.get("--model-path") or command.options.get("--model", ""),
        served_name=command.options.get("--served-model-name"),
    )
    others = [d for d in documents if d is not document and d.content is not None]
    prefixes, unusual = _prefixes(pods, commands, roles)
    return Recipe(
        name=name,
        origin=f"{document.file}, a deployment of Dynamo",
        engine=engine,
        pools={role: worker.pool for role, worker in workers.items()},
        rack=_rack(list(workers.values())),
        routing=routing,
        lengths=None,
        model=model,
        cluster=_cluster(model, answering.pod) | prefixes,
        dynamo=version_of_image(str(answering.pod.container.content.get("image"))),
        left_out=(
            *document.left_out(_REASONS),
            *_pods_left_out(pods, commands),
            *_options_left_out(engine, workers),
            *unusual,
            *(part for other in others for part in _object_left_out(other)),
            LeftOut("GPU", "", 0, "a deployment names none: GB200 unless hardware= says otherwise"),
        ),
        stated=(Lines(document.file),),
    )


def _deployment(documents: Sequence[Document]) -> Document:
    """Return the one deployment. Raises ConfigurationError for a second one."""
    first, *further = (d for d in documents if isinstance(d.content, dict) and d.content.get("kind") == KIND)
    for document in further:
        raise document.error((), f"a second {KIND}", "one in a file: tune imports one deployment at a time")
    return first


def _parts(spec: Section) -> Iterator[Section]:
    """Yield the services of v1alpha1, or the components of v1beta1."""
    services = spec.section("services")
    for name in services.content:
        yield services.section(name)
    yield from spec.sections("components")


def _config_maps(documents: Sequence[Document]) -> dict[str, Section]:
    maps = {}
    for document in documents:
        if isinstance(document.content, dict) and document.content.get("kind") == "ConfigMap":
            root = document.root()
            for key in ("apiVersion", "kind"):
                root.anything(key)
            metadata = root.section("metadata", required=True)
            name = metadata.required_text("name")
            if name in maps:
                raise metadata.wrong("name", "a name that no ConfigMap before it has")
            maps[name] = root.section("data")
    return maps


def _engine(document: Document, pods: Sequence[Pod], commands: Mapping[str, DynamoCommand]) -> str:
    """Return the engine of the workers, by the program that they run."""
    found: str | None = None
    for pod in pods:
        module = commands[pod.name].module
        if module in (None, _FRONTEND):
            continue
        engine = engine_in_recipes(module.removeprefix("dynamo."))
        if engine is None or found not in (None, engine):
            programs = " or ".join(f"dynamo.{name}" for name in recipe_names())
            expected = f"{programs}, {_EXPECTED_ENGINE}"
            raise document.error(pod.container.place, f"{module} in {pod.name}", expected)
        found = engine
    if found is None:
        raise document.error(("spec",), "no workers", f"{_EITHER}, of Dynamo")
    return found


def _workers(
    engine: str,
    pods: Sequence[Pod],
    commands: Mapping[str, DynamoCommand],
    roles: Mapping[str, Role],
    config_maps: Mapping[str, Section],
) -> dict[Role, _Worker]:
    """Return the workers of every role."""
    workers: dict[Role, _Worker] = {}
    for pod in pods:
        role = roles.get(pod.name)
        if role is not None:
            workers[role] = _worker(engine, role, pod, commands[pod.name], config_maps)
    return workers


def _roles(document: Document, pods: Sequence[Pod], commands: Mapping[str, DynamoCommand]) -> dict[str, Role]:
    """Return the roles of the pods with workers, by the names of these.

    Pods alone are aggregated workers where their command states no mode, whatever their component is called:
    a worker of Dynamo does both unless an option says otherwise. Raises ConfigurationError for other roles.
    """
    working = [pod for pod in pods if commands[pod.name].module not in (None, _FRONTEND)]
    if len(working) == 1 and _stated_mode(commands[working[0].name]) in (None, *_AGGREGATED_MODES):
        return {working[0].name: "aggregated"}
    roles: dict[str, Role] = {}
    for pod in working:
        role = _role(pod, commands[pod.name])
        if role in roles.values():
            raise document.error(pod.container.place, f"a second pool of {role} workers", "one")
        roles[pod.name] = role
    for role in ROLES:
        if role not in roles.values():
            raise document.error(("spec",), f"no {role} workers", _EITHER)
    return roles


def _stated_mode(command: DynamoCommand) -> str | None:
    """Return the mode that a command states, None where it leaves it to the worker."""
    flags = [role for role in ROLES if f"--is-{role}-worker" in command.options]
    return command.options.get("--disaggregation-mode") or next(iter(flags), None)


def _role(pod: Pod, command: DynamoCommand) -> Role:
    """Return the role of workers beside others."""
    stated = _stated_mode(command) or pod.role
    if stated == "worker" and command.module == _DECODES_UNSAID:
        stated = "decode"
    for role in ROLES:
        if stated == role:
            return role
    expected = f"prefill or decode by --disaggregation-mode ({_EITHER})"
    raise pod.container.document.error(pod.container.place, f"{pod.name} with the role {stated}", expected)


def _worker(
    engine: str, role: Role, pod: Pod, command: DynamoCommand, config_maps: Mapping[str, Section]
) -> _Worker:
    if not pod.replicas:
        raise pod.container.document.error(pod.container.place, f"0 replicas of {pod.name}", "1 or more")
    reader = file_reader(engine)
    file_keys, stated = _file_keys(engine, pod, command, config_maps)
    keys = keys_of_worker(role, command, reader, file_keys, pod.container)
    require_shapes(pod.container.document, (*pod.container.place, "args"), keys, engine)
    gpus = pod.gpus * pod.nodes or reader.gpus_of_keys(keys)
    stated = (*stated, pod.container.document.lines_of(pod.container.place))
    return _Worker(pod, command, Pool(pod.replicas, gpus, keys, pod.env, stated), pod.gpus or gpus)


def _file_keys(
    engine: str, pod: Pod, command: DynamoCommand, config_maps: Mapping[str, Section]
) -> tuple[dict[str, Any], tuple[Lines, ...]]:
    """Return the keys of the engine's file, which a ConfigMap holds, and where they stand."""
    file = command.options.get("--extra-engine-args")
    if file is None:
        return {}, ()
    for mount in pod.mounts:
        data, key = config_maps.get(mount.config_map), mount.key_of(PurePosixPath(file))
        if data is not None and key is not None and key in data.content:
            text, place = data.required_text(key), (*data.place, key)
            keys = read_inner(data.document, place, text)
            require_shapes(data.document, place, keys, engine)
            return keys, (data.document.lines_of(place),)
    document = pod.container.document
    found = f"--extra-engine-args {file}, which no ConfigMap of the file holds"
    raise document.error((*pod.container.place, "args"), found, "the ConfigMap that is mounted there")


def _routing(pods: Sequence[Pod], commands: Mapping[str, DynamoCommand]) -> Routing:
    frontends = _frontends(pods, commands)
    if not frontends:
        return Routing()
    options = commands[frontends[0].name].options
    return Routing(
        frontends=max(frontends[0].replicas, 1),
        router_mode=options.get("--router-mode"),
        request_plane=options.get("--request-plane"),
        env=frontends[0].env,
    )


def _frontends(pods: Sequence[Pod], commands: Mapping[str, DynamoCommand]) -> list[Pod]:
    return [pod for pod in pods if commands[pod.name].module == _FRONTEND or pod.role == "frontend"]


def _rack(workers: Sequence[_Worker]) -> Rack:
    """Return the nodes of a size on which every pod finds its GPUs, as many as the workers need."""
    largest = max(worker.gpus_per_pod for worker in workers)
    per_node = next((size for size in _NODE_SIZES if size >= largest), largest)
    pools = [worker.pool for worker in workers]
    nodes = sum(math.ceil(pool.workers * pool.gpus_per_worker / per_node) for pool in pools)
    return Rack(nodes, per_node, None)


def _prefixes(
    pods: Sequence[Pod], commands: Mapping[str, DynamoCommand], roles: Mapping[str, Role]
) -> tuple[dict[str, Any], list[LeftOut]]:
    """Return the setting of what stands before the commands, and what of it is more than a prefix."""
    prefixes: dict[str, list[str]] = {}
    unusual = []
    for pod in pods:
        command = commands[pod.name]
        if command.module is None:
            continue
        role = roles.get(pod.name, "frontend")
        is_plain = not _OF_A_SHELL & set("".join(command.prefix))
        if is_plain and command.prefix:
            prefixes[role] = list(command.prefix)
        for words in (() if is_plain else command.prefix, command.rest):
            if words:
                line = pod.container.document.line(pod.container.place)
                reason = "a shell's own; tune starts the process alone"
                unusual.append(LeftOut(f"{role} command", without_secrets(" ".join(words)), line, reason))
    return ({"command_prefix": prefixes} if prefixes else {}), unusual


def _cluster(model: ServedModel, pod: Pod) -> dict[str, Any]:
    stated = {"model_path": model.path or None, "container_image": pod.container.text("image")}
    return {name: value for name, value in stated.items() if value}


def _pods_left_out(pods: Sequence[Pod], commands: Mapping[str, DynamoCommand]) -> Iterator[LeftOut]:
    """Yield options of the frontend without a setting, and pods that are no workers and no first frontend."""
    frontends = _frontends(pods, commands)
    for pod in pods:
        container, command = pod.container, commands[pod.name]
        line = container.document.line(container.place)
        if pod in frontends[:1]:
            for option, value in command.options.items():
                if option not in _TAKEN_OF_FRONTEND:
                    yield _option_left_out(f"frontend {option}", option, value, line)
        elif command.module in (None, _FRONTEND):
            reason = "tune starts workers, and frontends that are all alike"
            yield LeftOut(f"component {pod.name}", command.module or pod.role or "", line, reason)


def _options_left_out(engine: str, workers: Mapping[Role, _Worker]) -> Iterator[LeftOut]:
    for role, worker in workers.items():
        line = worker.pod.container.document.line((*worker.pod.container.place, "args"))
        for option, value in other_options(role, worker.command, file_reader(engine)).items():
            if option not in _TAKEN_OPTIONS:
                yield _option_left_out(f"{role} {option}", option, value, line)


def _option_left_out(path: str, option: str, value: str, line: int) -> LeftOut:
    reason = "an option that tune sets itself or has no setting for"
    return LeftOut(path, "set" if value and looks_secret(option) else value, line, reason)


def _object_left_out(document: Document) -> Iterator[LeftOut]:
    """Yield what another document of the file has that no worker reads."""
    kind = document.content.get("kind") if isinstance(document.content, dict) else None
    if kind != "ConfigMap":
        yield LeftOut(str(kind), "", document.line(()), "an object of Kubernetes; tune launches with Slurm")
        return
    for part in document.left_out({}):
        reason = "no worker reads it" if part.path.startswith("data") else _KUBERNETES
        yield LeftOut(part.path, part.value, part.line, reason)
