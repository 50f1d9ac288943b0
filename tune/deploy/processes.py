"""List the processes of a deployment in the order in which they start; its engine describes most of them."""

from __future__ import annotations

from dataclasses import replace

from tune.deploy.launch_command import launch_command, start_delays_s
from tune.deploy.shell import reject_unbindable
from tune.engines.registry import engine_of
from tune.errors import ConfigurationError
from tune.manifest.process import PLAN_DIR, RAW_DIR, Process, address_of, log_path
from tune.spec.cluster import ClusterFacts
from tune.spec.environment import given_values, inherited_names
from tune.spec.split import HEAD_NODE, frontend_nodes, place_workers
from tune.spec.trial import PROBE_FOLDER, TrialSpec


def deployment_processes(spec: TrialSpec, facts: ClusterFacts) -> tuple[Process, ...]:
    """Return services, frontends, the workers of each pool and the client.

    Raises ConfigurationError where the rack is too small, the engine cannot be launched, or a variable is
    given that the plan sets itself.
    """
    adapter = engine_of(spec)
    placed = place_workers(spec.hardware, spec.prefill, spec.decode, spec.split)
    if placed is None:
        gpus = " and ".join(str(pool.engine.gpus) for pool in spec.pools)
        raise ConfigurationError(
            f"split: found {spec.split.label} with {gpus} GPUs a worker, "
            f"expected workers that fit {spec.hardware.nodes} nodes x {spec.hardware.gpus_per_node} GPUs. "
            "Use fewer or smaller workers, or more nodes."
        )
    processes = (
        *adapter.services(spec, facts),
        *adapter.frontends(spec, facts),
        *(adapter.worker(spec, facts, worker) for worker in placed),
        _client(spec),
    )
    delays_s = start_delays_s(max(facts.load_stagger_s, adapter.start_gap_s(spec)), placed)
    processes = tuple(_with_environment(process, spec, adapter.overridable) for process in processes)
    return tuple(launch_command(process, facts, delays_s.get(process.name, 0.0)) for process in processes)


def _with_environment(process: Process, spec: TrialSpec, overridable: frozenset[str]) -> Process:
    """Return `process` with the variables that the settings of its pool, or of the stack, give it.

    Raises ConfigurationError for a variable that the plan sets from other settings and that is not among the
    `overridable` ones.
    """
    path = f"{process.role}.env" if f"{process.role}.env" in spec.environments else "stack.env"
    variables = spec.environments[path]
    for name, value in variables.items():
        if name in process.env and name not in overridable:
            raise ConfigurationError(
                f"{path}.{name}: found {value!r}, expected no such variable, as tune sets it for "
                f"{process.name} from other settings. Remove it."
            )
        reject_unbindable(f"{path}.{name}", value or "")
    return replace(
        process, env={**process.env, **given_values(variables)}, inherits=inherited_names(variables)
    )


def frontend_urls(spec: TrialSpec) -> tuple[str, ...]:
    """Return where each frontend answers, for a client on the head node."""
    return tuple(
        f"http://{address_of(node)}:{spec.stack.frontend_port + index}"
        for index, node in enumerate(frontend_nodes(spec.hardware, spec.split))
    )


def endpoint_urls(spec: TrialSpec) -> tuple[str, ...]:
    """Return the OpenAI endpoint of each frontend, for a client on the head node."""
    return tuple(f"{url}/v1" for url in frontend_urls(spec))


def _client(spec: TrialSpec) -> Process:
    """Return the load client, which runs beside the first frontend, outside any container."""
    endpoints = (word for url in endpoint_urls(spec) for word in ("--endpoint", url))
    argv = (
        *("python3", "-m", "tune.client", f"{PLAN_DIR}/client.json"),
        *endpoints,
        *("--out", f"{RAW_DIR}/{PROBE_FOLDER}"),
    )
    return Process("client", "client", HEAD_NODE, (), {}, argv, log_path("client"))
