"""Read recipes of NVIDIA's srt-slurm, in the layout of schema 1 and of schema 2.

Sources: NVIDIA/srt-slurm, docs/config-reference.md, docs/legacy-v1.md and src/srtctl/core/schema.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tune.engines.registry import file_reader
from tune.recipes.document import Document, Section, path_of
from tune.recipes.engine_keys import required_keys
from tune.recipes.model_sizes import PRECISIONS
from tune.recipes.recipe import LeftOut, Lengths, Lines, Pool, Recipe, ServedModel, version_of_image
from tune.recipes.recipe_environment import merged, read_environment
from tune.recipes.recipe_load import REASONS as ARRIVAL_REASONS
from tune.recipes.recipe_load import read_srt_arrivals
from tune.recipes.srt_cluster import SERVER_ONLY, read_cluster
from tune.recipes.srt_rack import SrtPools, read_prefixes, read_rack, read_routing
from tune.spec.engine_table import ENGINES, engine_in_recipes, recipe_names
from tune.spec.split import ROLES, Role

_LOWEST_SHARE = 0.8
"""Share of the stated length that the shortest prompt and answer have. Source: srt-slurm, sa_bench.py."""

_RESOURCES: Mapping[Role, str] = {"aggregated": "agg"}
"""What schema 1 calls a role among its resources, where that is another name."""

_EITHER = "prefill and decode workers, or aggregated ones alone"
_RECORD = "states what was tested; tune records the configuration that it runs"
REASONS: Mapping[str, str] = {
    **SERVER_ONLY,
    **ARRIVAL_REASONS,
    "identity": _RECORD,
    "benchmark.num_warmup_mult": "tune warms up until every worker that can be counted has worked",
    "benchmark": "the load client is tune's own; choose its load with load=",
}
"""Why parts of a recipe are not taken over, by their path or that of what contains them."""


def is_srt_slurm(document: Document) -> bool:
    """Return whether a document has the outline of a recipe of srt-slurm."""
    content = document.content
    if not isinstance(content, dict):
        return False
    return "base" in content or "roles" in content or {"backend", "resources"} <= content.keys()


def read_srt_slurm(document: Document) -> Recipe:
    """Return a recipe of srt-slurm, without base and overrides.

    Raises ConfigurationError for another engine, aggregated workers beside others, and what a recipe has to
    have.
    """
    root = document.root()
    schema = _schema(root)
    name = root.required_text("name")
    has_roles = schema == 2 and "backend" not in root  # schema 2 began in the layout of schema 1
    pools = _pools_of_roles(root) if has_roles else _pools_of_backend(root)
    shared = read_environment(root, "environment")
    rack = read_rack(root, pools)
    routing = read_routing(root, rack, shared)
    dynamo, cluster = _dynamo_version(root), read_cluster(root)
    backend = _engine_options(root) if has_roles else root.section("backend")
    if prefixes := read_prefixes(root, pools, backend):
        cluster["command_prefix"] = prefixes
    model, lengths = _model(root, pools.served_name), _lengths(root)
    arrivals = read_srt_arrivals(root.section("benchmark")) if lengths else None
    return Recipe(
        name=name,
        origin=f"{document.file}, srt-slurm schema {schema}",
        engine=pools.engine,
        pools={role: _pool(pools, role, rack.gpus_per_node, shared) for role in pools.keys},
        rack=rack,
        routing=routing,
        lengths=lengths,
        arrivals=arrivals,
        model=model,
        cluster=cluster,
        dynamo=dynamo,
        left_out=(*_connector(pools, backend), *document.left_out(REASONS), *routing.left_out),
        stated=(Lines(document.file),),
    )


def _schema(root: Section) -> int:
    schema = root.count("schema") or 1
    if schema not in (1, 2):
        raise root.wrong("schema", "1 or 2")
    return schema


def _pools_of_backend(root: Section) -> SrtPools:
    """Return the engines of schema 1."""
    backend, resources = root.section("backend", required=True), root.section("resources", required=True)
    engine = _engine(backend, "type")
    roles = _roles_of_resources(resources)
    names = {role: _RESOURCES.get(role, role) for role in roles}
    configured = backend.section(f"{ENGINES[engine].recipe_name}_config", required=True)
    backend.accept("connector", "nixl")
    _accept_silent_workers(backend)
    return SrtPools(
        engine=engine,
        has_file=file_reader(engine).has_file,
        keys={role: required_keys(configured, role, engine) for role in roles},
        env={role: read_environment(backend, f"{role}_environment") for role in roles},
        nodes={role: _nodes_of_resources(resources, role) for role in roles},
        workers={role: resources.required_number_of(f"{name}_workers") for role, name in names.items()},
        gpus={role: resources.number_of(f"gpus_per_{name}") for role, name in names.items()},
        stated={role: root.document.lines_of((*configured.place, role)) for role in roles},
        served_name=backend.text("served_model_name"),
    )


def _roles_of_resources(resources: Section) -> tuple[Role, ...]:
    """Return the roles of schema 1: aggregated workers where any are stated, and no others then."""
    stated = [key for key in ("agg_workers", "agg_nodes") if resources.content.get(key)]
    if not stated:
        return ROLES
    for key in (f"{role}_{what}" for role in ROLES for what in ("workers", "nodes")):
        if resources.content.get(key):
            raise resources.wrong(stated[0], f"{_EITHER}: {key} stands beside it")
    return ("aggregated",)


def _nodes_of_resources(resources: Section, role: Role) -> int:
    """Return the nodes of a role in schema 1; aggregated workers have one where none are stated."""
    if role == "aggregated":
        return resources.number_of("agg_nodes") or 1
    return resources.required_number_of(f"{role}_nodes", least=0)


def _connector(pools: SrtPools, backend: Section) -> Iterator[LeftOut]:
    """Yield the connector of KV caches that srt-slurm gives aggregated workers of vLLM, unless it is null.

    Source: srt-slurm, src/srtctl/backends/vllm.py (c88ef73).
    """
    if pools.has_file or "aggregated" not in pools.keys:
        return
    connector = backend.content.get("connector", "nixl")
    backend.anything("connector")
    if connector is not None:
        place = (*backend.place, "connector")
        line = backend.document.line(place) if "connector" in backend.content else 0
        reason = "an aggregated worker sends no KV cache; tune starts it without a connector"
        yield LeftOut(path_of(place), backend.document.shown(place, connector), line, reason)


def _accept_silent_workers(section: Section) -> None:
    """Count options as used that say what tune's workers do: they publish no metrics of the engine."""
    for key in ("publish_events_and_metrics", "publish_metrics"):
        section.accept(key, False, None)


def _pools_of_roles(root: Section) -> SrtPools:
    """Return the engines of schema 2."""
    roles = root.section("roles", required=True)
    parts = _parts_of_roles(roles)
    named = (
        [_engine_section(root)] if "engine" in root else [_engine_section(part) for part in parts.values()]
    )
    engines = [_engine(section, key) for section, key in named]
    if len(set(engines)) > 1:  # only of two parts
        raise roles.document.error(
            (*parts["decode"].place, "engine"), engines[1], f"{engines[0]}, as prefill"
        )
    for section, _ in named:
        section.accept("connector", "nixl")
        _accept_silent_workers(section)
    for part in parts.values():
        part.accept("critical", True)
        part.accept("sidecar", False)
    return SrtPools(
        engine=engines[0],
        has_file=file_reader(engines[0]).has_file,
        keys={role: required_keys(part, "args", engines[0]) for role, part in parts.items()},
        env={role: read_environment(part, "env") for role, part in parts.items()},
        nodes={role: _nodes(part) for role, part in parts.items()},
        workers={role: part.required_number_of("workers") for role, part in parts.items()},
        gpus={role: part.number_of("gpus") for role, part in parts.items()},
        stated={role: root.document.lines_of((*part.place, "args")) for role, part in parts.items()},
        served_name=_served_name(named, parts),
    )


def _parts_of_roles(roles: Section) -> dict[Role, Section]:
    """Return the parts of schema 2 by their roles: prefill and decode, or aggregated workers alone."""
    if roles.content.get("agg") is None:
        return {role: roles.section(role, required=True) for role in ROLES}
    for role in ROLES:
        if roles.content.get(role) is not None:
            raise roles.wrong("agg", f"{_EITHER}: {role} stands beside it")
    return {"aggregated": roles.section("agg")}


def _engine_section(section: Section) -> tuple[Section, str]:
    """Return where an engine is named: the section, or one with the engine's options in it, and the key."""
    if isinstance(section.content.get("engine"), Mapping):
        return section.section("engine"), "type"
    return section, "engine"


def _engine_options(root: Section) -> Section:
    """Return the options of the engine, an empty section where there are none."""
    place = root.content.get("engine")
    return root.section("engine") if isinstance(place, Mapping) else root.section("engine_options")


def _served_name(named: list[tuple[Section, str]], parts: Mapping[Role, Section]) -> str | None:
    """Return the model's name in requests: an option of the engine, or an argument of both roles."""
    stated = [section.text("served_model_name") for section, key in named if key == "type"]
    arguments = [dict(part.content["args"]).get("served-model-name") for part in parts.values()]
    return next((name for name in (*stated, *arguments) if isinstance(name, str)), None)


def _nodes(part: Section) -> int:
    """Return the nodes of a role; 0 where its workers share those of the other role."""
    if part.content.get("nodes") == "colocate":
        part.anything("nodes")
        return 0
    return part.required_number_of("nodes")


def _engine(section: Section, key: str) -> str:
    """Return the engine that recipes call what is under `key`."""
    engine = engine_in_recipes(section.required_text(key))
    if engine is None:
        raise section.wrong(key, f"{' or '.join(recipe_names())}, the engines of which tune reads recipes")
    return engine


def _pool(pools: SrtPools, role: Role, gpus_per_node: int, shared: Mapping[str, str | None]) -> Pool:
    gpus = pools.gpus[role] or pools.nodes[role] * gpus_per_node // pools.workers[role]
    env = merged(shared, pools.env[role])
    return Pool(pools.workers[role], gpus, pools.keys[role], env, (pools.stated[role],))


def _model(root: Section, served_name: str | None) -> ServedModel:
    model = root.section("model", required=True)
    stated = root.section("identity").section("model") if "identity" in root else root.section("identity")
    path, precision = model.required_text("path"), model.text("precision")
    if precision is not None and precision.lower() not in PRECISIONS:
        raise model.wrong("precision", f"one of {', '.join(PRECISIONS)}")
    repository = path.removeprefix("hf:") if "/" in path and not path.startswith("/") else None
    return ServedModel(
        path=path.removeprefix("hf:"),
        repository=stated.text("repo") or repository,
        served_name=served_name,
        precision=precision,
    )


def _lengths(root: Section) -> Lengths | None:
    """Return the lengths of the benchmark, None where it has a program of its own."""
    benchmark = root.section("benchmark")
    benchmark.accept("use_chat_template", False)
    prompts, answers = benchmark.count("isl"), benchmark.count("osl")
    if prompts is None or answers is None:
        return None
    if benchmark.content.get("type") == "sa-bench":
        benchmark.anything("type")
    share = benchmark.anything("random_range_ratio")
    if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
        raise benchmark.wrong("random_range_ratio", "a number from 0 to 1")
    return Lengths(prompts, answers, _LOWEST_SHARE if share is None else float(share))


def _dynamo_version(root: Section) -> str | None:
    """Return the version of Dynamo: of its own block, of what was tested, or of the image."""
    dynamo, identity = root.section("dynamo"), root.section("identity")
    dynamo.accept("install", False)
    tested = identity.section("container").content.get("image")
    image = tested or root.section("model").content.get("container")
    stated = [
        dynamo.content.get("version"),
        dynamo.content.get("wheel"),
        dynamo.section("source").content.get("pypi"),
        dynamo.section("source").content.get("wheel"),
        identity.section("frameworks").content.get("dynamo"),
        version_of_image(str(image)),
    ]
    return next((text for text in stated if isinstance(text, str)), None)
