"""Describe every setting by path, type, unit, default and meaning, for `--help` and the settings page."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import Container, OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tune.cli.setting_meanings import meaning_of, pool_meaning
from tune.spec.engine import Engine
from tune.spec.engine_table import ENGINES, settings_class
from tune.spec.settings import Settings
from tune.spec.space import Dimension

_PLAIN = {bool: "true or false", int: "integer", float: "number", str: "text", type(None): "null"}
_BEYOND_USE = 1_000_000
"""Least upper bound that is not shown: it only keeps absurd numbers out."""

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_ABSENT = object()
_POOL = "settings of an engine"


@dataclass(frozen=True)
class SettingRow:
    """Describe one setting.

    `default` is its value in the configuration as shipped, in YAML's notation. `engines` names the engines
    that have it; it is empty for a setting that does not depend on the engine.
    """

    path: str
    kind: str
    unit: str
    default: str
    meaning: str
    engines: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Return the first part of the path; "command" for settings without a group."""
        group, dot, _ = self.path.partition(".")
        return group if dot else "command"


def setting_rows(values: Mapping[str, Any]) -> Iterator[SettingRow]:
    """Yield every setting in the order of the types, with its default from the configuration `values`.

    Those of a pool come by engine, once for engines that share a class of settings.
    """
    for path, kind in _leaves(Settings, ""):
        if kind == _POOL:
            yield from _pool_rows(path, values)
            continue
        unit, meaning = meaning_of(path)
        yield SettingRow(path, kind, unit, _shown(_value(values, path)), meaning)


def _pool_rows(pool: str, values: Mapping[str, Any]) -> Iterator[SettingRow]:
    """Yield the settings that each engine has for a pool."""
    for settings in dict.fromkeys(map(settings_class, ENGINES)):
        engines = tuple(name for name in ENGINES if settings_class(name) is settings)
        for path, kind in _leaves(settings, f"{pool}."):
            unit, meaning = pool_meaning(settings, path.removeprefix(f"{pool}."))
            yield SettingRow(path, kind, unit, _shown(_value(values, path)), meaning, engines)


def register_settings_help() -> None:
    """Let Hydra's help template print every setting with the value of the composed command line."""
    OmegaConf.register_new_resolver("tune_settings", _help_text, replace=True)


def _help_text(*, _root_: Container) -> str:
    """Render every setting that the engine in use has on two lines.

    Dollar signs are doubled, as Hydra's template demands.
    """
    root: Any = _root_
    values = {
        key: OmegaConf.to_container(root[key]) if OmegaConf.is_config(root[key]) else root[key]
        for key in root
        if key != "hydra"
    }
    lines = []
    for row in setting_rows(values):
        if row.engines and root.stack.engine not in row.engines:
            continue
        facts = f"{row.kind}{f', {row.unit}' if row.unit else ''}"
        value = f"={row.default}" if row.default else ""
        lines.append(f"  {row.path}{value}\n      [{facts}] {row.meaning}")
    return "\n".join(lines).replace("$", "$$")


def render_markdown(values: Mapping[str, Any]) -> str:
    """Render docs/reference/settings.md for the configuration `values` as shipped."""
    rows = list(setting_rows(values))
    lines = [
        "# Settings",
        "",
        "Every setting, generated from the types: `make reference` writes this page, and a test compares it.",
        "A setting is changed with `path=value` on the command line; a group such as `hardware` or `slo` is",
        "chosen with `group=option`. `python -m tune --help` prints these facts with the values of the",
        "command line.",
    ]
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"## {group}"]
        for engines in dict.fromkeys(row.engines for row in rows if row.group == group):
            if engines:
                lines += ["", f"With `stack.engine` {' or '.join(engines)}:"]
            lines += ["", "| setting | type | unit | default | meaning |", "|---|---|---|---|---|"]
            lines += [_markdown_row(row) for row in rows if (row.group, row.engines) == (group, engines)]
    return "\n".join(lines) + "\n"


def _markdown_row(row: SettingRow) -> str:
    default = f"`{row.default}`" if row.default else ""
    kind = row.kind.replace("|", "\\|")
    return f"| `{row.path}` | {kind} | {row.unit} | {default} | {row.meaning} |"


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield path and type of every setting of `model`; a group that may be null is a setting too."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if path == "sweep.space":
            yield from _dimension_leaves()
            continue
        groups = [part for part in _alternatives(field.annotation) if _is_model(part)]
        if not groups:
            yield path, _field_type(field)
            continue
        if groups == [Engine]:
            yield path, _POOL
            continue
        if type(None) in _alternatives(field.annotation) and path != "sweep":
            yield path, "group or null"
        yield from _group_leaves(groups, f"{path}.")


def _group_leaves(groups: Sequence[type[BaseModel]], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield path and type of every setting below `prefix`, whose group has one of several classes."""
    kinds: dict[str, list[str]] = {}
    for group in groups:
        for path, kind in _leaves(group, prefix):
            kinds.setdefault(path, []).extend(kind.split(" or "))
    for path, described in kinds.items():
        yield path, " or ".join(dict.fromkeys(described))


def _dimension_leaves() -> Iterator[tuple[str, str]]:
    """Yield path and type of every key of a sweep's dimension, over all kinds of dimensions."""
    union, *_ = get_args(Dimension)
    kinds: dict[str, list[str]] = {}
    for dimension in get_args(union):
        for name, field in dimension.model_fields.items():
            kinds.setdefault(name, []).append(_field_type(field))
    for name, described in kinds.items():
        yield f"sweep.space.NAME.{name}", " or ".join(dict.fromkeys(described))


def _field_type(field: FieldInfo) -> str:
    return _type_name(field.annotation, field.metadata)


def _type_name(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return a type as users read it, such as `integer > 0 or null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [limit for part in arguments[1:] if isinstance(part, FieldInfo) for limit in part.metadata]
        described = next((part.description for part in arguments if isinstance(part, FieldInfo)), None)
        return described or _type_name(arguments[0], [*inner, *metadata])
    if origin is Literal:
        return " | ".join(str(value) for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part, () if part is type(None) else metadata) for part in arguments)
    if origin is tuple:
        items = [_type_name(argument) for argument in arguments if argument is not Ellipsis]
        item, nested, _ = items[0].partition("list of ")
        listed = f"list of {item}{'list' if nested else ''}"
        return listed if Ellipsis in arguments else f"[{', '.join(items)}]"
    if origin is dict:
        return "mapping"
    found = [(sign, getattr(limit, name, None)) for limit in metadata for name, sign in _BOUNDS.items()]
    bounds = [
        f"{sign} {_bound(limit)}"
        for sign, limit in found
        if limit is not None and not (sign == "<=" and limit >= _BEYOND_USE)
    ]
    return f"{_PLAIN[annotation]} {' and '.join(bounds)}".rstrip()


def _bound(limit: float) -> str:
    return f"{limit:g}" if limit < 2**20 else f"2^{math.log2(limit):g}"


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _value(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at `path`; _ABSENT below a group that is null and outside of the configuration."""
    node: Any = values
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return _ABSENT if isinstance(node, Mapping) and node else node


def _shown(value: Any) -> str:
    """Return a value in YAML's notation, floats with as few digits as are exact."""
    if value is _ABSENT:
        return ""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
