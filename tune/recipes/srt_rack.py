"""Read which nodes a recipe of srt-slurm takes, and where its frontends run.

Source: NVIDIA/srt-slurm, src/srtctl/cli/mixins/frontend_stage.py and docs/config-reference.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune.recipes.document import Section
from tune.recipes.recipe import Head, Lines, Rack, Routing
from tune.recipes.recipe_environment import merged, read_environment
from tune.spec.split import Role

_GPUS_PER_NODE = 4
_FURTHER_FRONTENDS = 9
_REQUEST_PLANE = "tcp"
"""What holds where a recipe does not say. Source: srt-slurm, src/srtctl/core/schema.py."""

_DEDICATED = "dedicated"

WORKER_NUMACTL = ("numactl", "-m", "0,1")
FRONTEND_NUMACTL = ("numactl", "--cpunodebind=0", "--membind=0")
"""What srt-slurm puts before the commands of workers and frontends.
Source: srt-slurm, src/srtctl/backends/trtllm.py and docs/schema-reference.md."""

_NUMACTL_GPUS = ("gb200", "gb300", "vrnvl72")
"""GPUs whose workers get the prefix where a recipe does not say, in these letters."""


@dataclass(frozen=True)
class SrtPools:
    """Hold what a recipe states of each role; `gpus` are those of one worker, None where it states none.

    `engine` is a name of the table of engines, `has_file` says whether its workers read a file, and `stated`
    where the keys stand.
    """

    engine: str
    has_file: bool
    keys: Mapping[Role, dict[str, Any]]
    env: Mapping[Role, dict[str, str | None]]
    nodes: Mapping[Role, int]
    workers: Mapping[Role, int]
    gpus: Mapping[Role, int | None]
    stated: Mapping[Role, Lines]
    served_name: str | None


def read_rack(root: Section, pools: SrtPools) -> Rack:
    """Return the rack of a recipe: the nodes of both roles, and one that is kept for what is no worker."""
    resources = root.section("resources", required=True)
    resources.accept("het_jobs", False, None)
    resources.accept("spread_workers", False)
    kept = _kept_nodes(root)
    return Rack(
        nodes=sum(pools.nodes.values()) + kept,
        gpus_per_node=resources.number_of("gpus_per_node") or _GPUS_PER_NODE,
        gpu=resources.text("gpu_type"),
        head="none" if kept else _head(root),
    )


def _kept_nodes(root: Section) -> int:
    """Return how many nodes no worker runs on: of services, frontend and load client."""
    frontend, benchmark = root.section("frontend"), root.section("benchmark")
    services = root.section("infra").flag("etcd_nats_dedicated_node", default=False)
    for service in root.sections("services"):
        services |= _placement(service) == _DEDICATED
        if service.text("type") in ("etcd", "nats"):
            service.anything("name")
        else:
            service.leave("type", "of these services tune starts etcd and NATS alone")
    wanted = [
        services,
        frontend.flag("dedicated_node", default=False) or _placement(frontend) == _DEDICATED,
        benchmark.flag("client_dedicated_node", default=False) or _placement(benchmark) == _DEDICATED,
    ]
    if benchmark.flag("colocate_with_frontend", default=True):
        return int(any(wanted))
    return sum(wanted)


def _placement(section: Section) -> str | None:
    return section.section("placement").text("node")


def _head(root: Section) -> Head:
    """Return the pool whose first worker shares its node with the frontend."""
    frontend, benchmark = root.section("frontend"), root.section("benchmark")
    placement = _placement(frontend) or frontend.text("orchestrator_placement") or "head"
    client = _placement(benchmark) or benchmark.content.get("client_placement")
    if client == "head":
        benchmark.anything("client_placement")
    return "decode" if placement == "first_decode" else "prefill"


def read_prefixes(root: Section, pools: SrtPools, backend: Section) -> dict[str, list[str]]:
    """Return what stands before the commands of each role, none where nothing does.

    Parameters
    ----------
    root
        The recipe.
    pools
        Its engines: only TensorRT-LLM's workers get a prefix.
    backend
        The options of the engine.

    Returns
    -------
    dict[str, list[str]]
        The words, by the role.
    """
    binds = backend.content.get("numa_memory_bind")
    prefixes: dict[str, list[str]] = {}
    if binds in (True, False, None):
        backend.anything("numa_memory_bind")
        known = root.section("resources").content.get("gpu_type") in _NUMACTL_GPUS
        if pools.has_file and (known if binds is None else binds):
            prefixes |= {role: list(WORKER_NUMACTL) for role in pools.keys}
    if root.section("frontend").flag("numa_bind", default=False):
        prefixes["frontend"] = list(FRONTEND_NUMACTL)
    return prefixes


def read_routing(root: Section, rack: Rack, shared: Mapping[str, str | None]) -> Routing:
    """Return frontends, router and request plane of a recipe.

    Parameters
    ----------
    root
        The recipe.
    rack
        Its rack: the frontends run on the nodes of workers, one a node, besides the first.
    shared
        Environment variables of every process.

    Returns
    -------
    Routing
        What holds for the frontends.
    """
    frontend = root.section("frontend")
    frontend.accept("type", "dynamo")
    arguments = frontend.section("args")
    return Routing(
        frontends=_frontends(frontend, rack.nodes - (rack.head == "none")),
        router_mode=arguments.text("router-mode"),
        request_plane=root.section("dynamo").text("request_plane") or _REQUEST_PLANE,
        env=merged(shared, read_environment(frontend, "env")),
    )


def _frontends(frontend: Section, worker_nodes: int) -> int:
    """Return how many frontends there are; without a word on them, up to ten behind a proxy."""
    further = frontend.number_of("num_additional_frontends", least=0)
    several = frontend.flag("enable_multiple_frontends", default=True)
    if worker_nodes == 1 or not several:
        return 1
    return min((_FURTHER_FRONTENDS if further is None else further) + 1, worker_nodes - 1)
