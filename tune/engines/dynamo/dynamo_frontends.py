"""Render Dynamo's OpenAI endpoints, the program that serves every engine.

Source: Dynamo, components/src/dynamo/frontend/frontend_args.py (1.x).
"""

from __future__ import annotations

from tune.manifest.process import Port, Process, dynamo_program, log_path
from tune.spec.cluster import ClusterFacts
from tune.spec.split import frontend_nodes
from tune.spec.trial import TrialSpec

PACKAGE = "ai-dynamo"
"""Distribution of Dynamo."""

FRONTEND_PARSERS: dict[str, tuple[str, ...]] = {"dynamo.frontend": ("dynamo.frontend.main:parse_args",)}
"""Parser of the frontend's command line. Source: Dynamo, components/frontend/src/dynamo/frontend/main.py (mid
2025); components/src/dynamo/frontend/main.py (1.x)."""


def router_options(spec: TrialSpec) -> tuple[str, ...]:
    """Return the options of a frontend's router.

    A kv router places a request by the KV cache and the load of all workers. Where no worker keeps blocks for
    reuse, it expects no events of them; several of them tell each other what they have sent where.
    Source: Dynamo 1.6.1, components/src/dynamo/common/configuration/groups/kv_router_args.py, where
    --no-kv-events is the name that older versions know too; NVIDIA, MLPerf Inference v6.1, which has
    --router-mode kv --router-replica-sync.
    """
    options: tuple[str, ...] = ("--router-mode", spec.stack.router_mode)
    if spec.stack.router_mode == "kv":
        options += () if publishes_kv_events(spec) else ("--no-kv-events",)
        options += ("--router-replica-sync",) if spec.split.frontends > 1 else ()
    return options


def publishes_kv_events(spec: TrialSpec) -> bool:
    """Return whether workers tell the frontends which KV blocks they hold."""
    reuse = any(pool.engine.reuses_kv_blocks for pool in spec.pools)
    return spec.stack.router_mode == "kv" and reuse


def dynamo_frontends(
    spec: TrialSpec, facts: ClusterFacts, env: dict[str, str], options: tuple[str, ...] = ()
) -> tuple[Process, ...]:
    """Return every frontend, the first on the head node.

    Each has a port of its own, also on different nodes, as with cluster=local all nodes are one machine.

    Parameters
    ----------
    spec
        The trial: number of frontends, router and ports.
    facts
        Say where Dynamo is.
    env
        The environment of every frontend.
    options
        Further options of every frontend.
    """
    program = (dynamo_program(facts, "python3"), "-m", "dynamo.frontend")
    processes = []
    for index, node in enumerate(frontend_nodes(spec.hardware, spec.split)):
        name, port = f"frontend_{index}" if index else "frontend", spec.stack.frontend_port + index
        argv = (*program, *router_options(spec), *options, "--http-port", str(port))
        listens = (Port(port, "stack.frontend_port"),)
        processes.append(
            Process(name, "frontend", node, (), env, argv, log_path(name), listens, metrics_port=port)
        )
    return tuple(processes)
