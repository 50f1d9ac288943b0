"""Keep settings of a trial that another program has no place for, in comments of what is exported to it.

Every line begins with `#| `, which is a comment in YAML and in shell scripts. Behind it the lines are YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import ValidationError

from tune.errors import ConfigurationError
from tune.recipes.recipe import Recipe
from tune.spec.base import FrozenModel
from tune.spec.stack import Stack
from tune.spec.trial import TrialSpec

Group = Literal["model", "hardware", "split", "stack", "load", "slo"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""Groups of settings that are kept whole. What a recipe says of them wins when it is read again."""

WRITTEN = "# Written by action=export of tune."
"""Beginning of a line in every exported file, by which a later export recognises its own."""

_MARK = "#| "
_HEADING = f"{WRITTEN} What follows is what the format has no place for; action=import reads it.\n"

Tree = dict[str, Any]
"""Nested mappings of settings by their names."""


@dataclass(frozen=True)
class KeptSettings:
    """Hold kept settings of a trial: groups by their names, and leaves that win over what a recipe says."""

    trial_id: str
    groups: Mapping[Group, Tree]
    over: Tree = field(default_factory=dict)

    def text(self) -> str:
        """Return the comment lines."""
        content = {"trial_id": self.trial_id, "groups": dict(self.groups), "over": self.over}
        lines = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100).splitlines()
        return _HEADING + "".join(f"{_MARK}{line}\n" for line in lines)


def keep(spec: TrialSpec, over: Tree) -> KeptSettings:
    """Return what is kept of a trial beside its engines; `over` holds what a recipe would give otherwise."""
    plain = spec.model_dump(mode="json")
    return KeptSettings(spec.trial_id, {name: plain[name] for name in GROUPS}, over)


def read_kept(file: Path) -> KeptSettings | None:
    """Return the settings in the comments of a file, None without any.

    Raises ConfigurationError where they are no mapping of groups, as after a hand has changed them.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    if not kept:
        return None
    try:
        return _Comments.model_validate(yaml.safe_load("\n".join(kept))).settings
    except (yaml.YAMLError, ValidationError):
        line = lines.index(_MARK + kept[0]) + 1
        raise ConfigurationError(
            f"{file}, line {line}: found comments that begin with {_MARK.strip()} and are not as "
            "action=export writes them; expected trial_id, groups and over. Remove these lines to import the "
            "rest. Nothing was written."
        ) from None


class _Comments(FrozenModel):
    """Hold the YAML in the comments."""

    trial_id: str
    groups: dict[Group, Tree]
    over: Tree

    @property
    def settings(self) -> KeptSettings:
        """Return the content as kept settings."""
        return KeptSettings(self.trial_id, self.groups, self.over)


def apply_kept(recipe: Recipe, kept: KeptSettings | None) -> Recipe:
    """Return a recipe with what is kept of the trial that it was exported from, over what it says itself."""
    if kept is None:
        return recipe
    stack = kept.groups.get("stack")
    if stack and Stack.model_validate(stack).requests_over == recipe.routing.request_plane:
        recipe = replace(recipe, routing=replace(recipe.routing, request_plane=None))
    over = {name: kept.over.get(name) or {} for name in ("hardware", "split", "stack")}
    rack, routing = recipe.rack, recipe.routing
    return replace(
        recipe,
        kept=kept,
        rack=replace(
            rack,
            nodes=over["hardware"].get("nodes", rack.nodes),
            gpus_per_node=over["hardware"].get("gpus_per_node", rack.gpus_per_node),
            head=over["split"].get("head", rack.head),
        ),
        routing=replace(
            routing,
            frontends=over["split"].get("frontends", routing.frontends),
            router_mode=over["stack"].get("router_mode", routing.router_mode),
            request_plane=over["stack"].get("request_plane", routing.request_plane),
        ),
    )


def missing_settings(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Tree:
    """Return the leaves of `wanted` that `found` lacks or has with another value."""
    missing: Tree = {}
    for name, value in wanted.items():
        if isinstance(value, Mapping) and isinstance(found.get(name), Mapping):
            if inner := missing_settings(value, found[name]):
                missing[name] = inner
        elif name not in found or found[name] != value:
            missing[name] = value
    return missing


def merged_settings(settings: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Return nested settings with those of `over` in their place."""
    merged = dict(settings)
    for name, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merged_settings(merged[name], value) if both else value
    return merged
