"""Render Dynamo's OpenAI endpoints, the program that serves every engine.

Source: Dynamo, components/src/dynamo/frontend/frontend_args.py (1.x).
"""

from __future__ import annotations

from tune.manifest.process import Port, Process, dynamo_program, log_path
from tune.spec.cluster import ClusterFacts
from tune.spec.split import frontend_nodes
from tune.spec.trial import TrialSpec

FRONTEND_PARSERS: dict[str, tuple[str, ...]] = {"dynamo.frontend": ("dynamo.frontend.main:parse_args",)}
"""Parser of the frontend's command line. Source: Dynamo, components/frontend/src/dynamo/frontend/main.py (mid
2025); components/src/dynamo/frontend/main.py (1.x)."""


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
    routing = ("--router-mode", spec.stack.router_mode)
    processes = []
    for index, node in enumerate(frontend_nodes(spec.hardware, spec.split)):
        name, port = f"frontend_{index}" if index else "frontend", spec.stack.frontend_port + index
        argv = (*program, *routing, *options, "--http-port", str(port))
        listens = (Port(port, "stack.frontend_port"),)
        processes.append(
            Process(name, "frontend", node, (), env, argv, log_path(name), listens, metrics_port=port)
        )
    return tuple(processes)
