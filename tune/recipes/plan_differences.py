"""Compare the plan of a written configuration with the recipe that it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tune.deploy.plan import LaunchPlan
from tune.engines.registry import file_reader
from tune.recipes.recipe import REQUEST_PLANES, ROUTER_MODES, ClosedLoop, OfferedRate, Pool, Recipe
from tune.spec.load import Load, load_text
from tune.spec.split import Role
from tune.spec.trial import TrialSpec

_NOTHING = object()


def differences(recipe: Recipe, spec: TrialSpec, plan: LaunchPlan) -> tuple[str, ...]:
    """Return what a plan has otherwise than its recipe; empty where it launches what the recipe says.

    Parameters
    ----------
    recipe
        The recipe as it was read.
    spec, plan
        The configuration that was written of it, composed and rendered.

    Returns
    -------
    tuple[str, ...]
        One line a difference: engine keys, environment, workers, GPUs, nodes, frontends, lengths, arrivals.
    """
    return tuple(
        line
        for role, pool in recipe.pools.items()
        for line in (
            *_engine_differences(recipe.engine, role, pool, plan),
            *_worker_differences(role, pool, plan),
        )
    ) + tuple(_deployment_differences(recipe, spec, plan))


def written_out(recipe: Recipe, plan: LaunchPlan) -> tuple[str, ...]:
    """Return the engine keys that a recipe leaves to the engine and a plan states, with their values."""
    return tuple(
        line
        for role, pool in recipe.pools.items()
        for line in _added(role, *_wanted_and_written(recipe.engine, role, pool, plan))
    )


def _added(path: str, wanted: Any, written: Mapping[str, Any]) -> Iterator[str]:
    for key, value in written.items():
        if not isinstance(wanted, Mapping) or key not in wanted:
            yield f"{path}.{key}={value}"
        elif isinstance(value, Mapping):
            yield from _added(f"{path}.{key}", wanted[key], value)


def _engine_differences(engine: str, role: Role, pool: Pool, plan: LaunchPlan) -> Iterator[str]:
    """Yield the keys of the recipe that the engine is not given, or with another value."""
    yield from _unequal(f"{role}.yaml", *_wanted_and_written(engine, role, pool, plan))


def _wanted_and_written(
    engine: str, role: Role, pool: Pool, plan: LaunchPlan
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the keys of a recipe and those of a plan, in a form in which equal ones are equal."""
    reader = file_reader(engine)
    worker = next((process for process in plan.processes if process.role == role), None)
    written = reader.keys_of_worker(plan.files, worker) if worker else {}
    return reader.comparable_keys(role, pool.engine_keys), reader.comparable_keys(role, written)


def _worker_differences(role: Role, pool: Pool, plan: LaunchPlan) -> Iterator[str]:
    workers = [process for process in plan.processes if process.role == role]
    if len(workers) != pool.workers:
        yield f"{role}: {len(workers)} workers, in the recipe {pool.workers}"
    for worker in workers:
        if len(worker.gpus) != pool.gpus_per_worker:
            yield f"{worker.name}: {len(worker.gpus)} GPUs, in the recipe {pool.gpus_per_worker}"
        yield from _env_differences(worker.name, pool.env, worker.env, worker.inherits)


def _env_differences(
    process: str, wanted: Mapping[str, str | None], given: Mapping[str, str], inherited: tuple[str, ...]
) -> Iterator[str]:
    for name, value in wanted.items():
        if value is None and name not in inherited:
            yield f"{process}: {name} is not passed on"
        elif value is not None and given.get(name) != value:
            yield f"{process}: {name}={given.get(name)}, in the recipe {value}"


def _deployment_differences(recipe: Recipe, spec: TrialSpec, plan: LaunchPlan) -> Iterator[str]:
    rack, lengths = recipe.rack, recipe.lengths
    if (spec.hardware.nodes, spec.hardware.gpus_per_node) != (rack.nodes, rack.gpus_per_node):
        yield f"rack: {spec.hardware.nodes} x {spec.hardware.gpus_per_node} GPUs"
    routing = recipe.routing
    frontends = [process for process in plan.processes if process.role == "frontend"]
    if len(frontends) != routing.frontends:
        yield f"frontends: {len(frontends)}, in the recipe {routing.frontends}"
    if routing.request_plane in REQUEST_PLANES and spec.stack.requests_over != routing.request_plane:
        yield f"requests travel over {spec.stack.requests_over}, in the recipe {routing.request_plane}"
    for process in frontends:
        yield from _env_differences(process.name, routing.env, process.env, process.inherits)
        if routing.router_mode in ROUTER_MODES and routing.router_mode not in process.argv:
            yield f"{process.name}: its router is not {routing.router_mode}"
    if lengths is not None:
        found = (spec.load.dataset.longest_prompt_tokens, spec.load.dataset.longest_answer_tokens)
        if found != (lengths.input_tokens, lengths.output_tokens):
            yield f"longest prompt and answer: {found} tokens"
    yield from _arrival_differences(recipe.arrivals, spec.load)


def _arrival_differences(wanted: OfferedRate | ClosedLoop | None, load: Load) -> Iterator[str]:
    if isinstance(wanted, ClosedLoop) and load.concurrency != wanted.most:
        yield f"load: {load.text}, in the recipe {load_text(None, wanted.most)}"
    if isinstance(wanted, OfferedRate) and load.target_qps != wanted.qps:
        yield f"load: {load.text}, in the recipe {load_text(wanted.qps, None)}"


def _unequal(path: str, wanted: Any, written: Any) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(written, Mapping):
        for key, value in wanted.items():
            yield from _unequal(f"{path}.{key}", value, written.get(key, _NOTHING))
    elif written is _NOTHING and wanted is not None:
        yield f"{path}: absent, in the recipe {wanted!r}"
    elif written is not _NOTHING and (wanted != written or type(wanted) is not type(written)):
        yield f"{path}: {written!r}, in the recipe {wanted!r}"
