"""Leave out of a recipe the environment variables that a plan sets by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tune.deploy.plan import LaunchPlan
from tune.recipes.recipe import LeftOut, Recipe
from tune.spec.split import ALL_ROLES

OwnVariables = Mapping[str, Mapping[str, str | None]]
"""Variables by the role of a process and by their names, with a value that a user may replace, else None."""


def variables_of_plan(plan: LaunchPlan, overridable: frozenset[str]) -> OwnVariables:
    """Return the variables that a plan sets for workers and frontends, `overridable` ones with values."""
    return {
        process.role: {name: value if name in overridable else None for name, value in process.env.items()}
        for process in plan.processes
        if process.role in (*ALL_ROLES, "frontend")
    }


def without_own_variables(recipe: Recipe, own: OwnVariables) -> Recipe:
    """Return a recipe without the variables in `own`, which are listed as left out.

    One that a user may replace stays where it has another value.
    """
    given = {role: pool.env for role, pool in recipe.pools.items()} | {"frontend": recipe.routing.env}
    kept = {
        role: {name: value for name, value in env.items() if not _is_own(name, value, own[role])}
        for role, env in given.items()
    }
    return replace(
        recipe,
        pools={role: replace(pool, env=kept[role]) for role, pool in recipe.pools.items()},
        routing=replace(recipe.routing, env=kept["frontend"]),
        left_out=(*recipe.left_out, *_left_out(given, own)),
    )


def _is_own(name: str, value: str | None, own: Mapping[str, str | None]) -> bool:
    return name in own and own[name] in (None, value)


def _left_out(given: Mapping[str, Mapping[str, str | None]], own: OwnVariables) -> Iterator[LeftOut]:
    for role, env in given.items():
        for name in sorted(name for name, value in env.items() if _is_own(name, value, own[role])):
            yield LeftOut(f"{role}: {name}", env[name] or "", 0, "tune sets it by other settings")
