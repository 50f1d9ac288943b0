"""Describe every setting by path, type, unit, default and meaning, for `--help` and the settings page."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from omegaconf import Container, OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

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

REQUIRED = "required"
"""Stands for the default of a setting that has none."""

GROUP = "group"
"""Stands for the value of a group, whose settings have rows of their own."""


class _Leaf(NamedTuple):
    """Describe one setting as its type does; `default` is that of the type, or REQUIRED."""

    path: str
    kind: str
    default: str


@dataclass(frozen=True)
class SettingRow:
    """Describe one setting.

    `default` is its value in a configuration, in YAML's notation, or GROUP. Where that configuration leaves
    it out, it is the default of its type, or REQUIRED. `engines` names the engines that have it; it is empty
    for a setting that does not depend on the engine.
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

    @property
    def has_value(self) -> bool:
        """Return whether `default` is a value, not a word about it."""
        return self.default not in (REQUIRED, GROUP)


def setting_rows(values: Mapping[str, Any]) -> Iterator[SettingRow]:
    """Yield every setting in the order of the types, with its default from the configuration `values`.

    Those of a pool come by engine, once for engines that share a class of settings.
    """
    for leaf in _leaves(Settings, ""):
        if leaf.kind == _POOL:
            yield from _pool_rows(leaf.path, values)
            continue
        unit, meaning = meaning_of(leaf.path)
        yield SettingRow(leaf.path, leaf.kind, unit, _default(leaf, values), meaning)


def _pool_rows(pool: str, values: Mapping[str, Any]) -> Iterator[SettingRow]:
    """Yield the settings that each engine has for a pool; `values` has those of one engine."""
    for settings in dict.fromkeys(map(settings_class, ENGINES)):
        engines = tuple(name for name in ENGINES if settings_class(name) is settings)
        known = values if _value(values, "stack.engine") in engines else {}
        for leaf in _leaves(settings, f"{pool}."):
            unit, meaning = pool_meaning(settings, leaf.path.removeprefix(f"{pool}."))
            yield SettingRow(leaf.path, leaf.kind, unit, _default(leaf, known), meaning, engines)


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
        value = f"={row.default}" if row.has_value else f" ({row.default})"
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
        "",
        "The default is the value that `python -m tune` has without an override. Where its options leave a",
        "setting out, as those of another engine, it is the value of the setting until an option or an",
        f"override sets it. *{REQUIRED}* says that there is none: an option such as `prefill=vllm`, a file",
        f"of yours or the command line states it. *{GROUP}* is a group that is set; its settings follow.",
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
    default = f"`{row.default}`" if row.has_value else f"*{row.default}*"
    kind = row.kind.replace("|", "\\|")
    return f"| `{row.path}` | {kind} | {row.unit} | {default} | {row.meaning} |"


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[_Leaf]:
    """Yield every setting of `model`; a group that may be null is a setting too."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if path == "sweep.space":
            yield from _dimension_leaves()
            continue
        groups = [part for part in _alternatives(field.annotation) if _is_model(part)]
        if not groups:
            yield _leaf(path, field)
            continue
        if groups == [Engine]:
            yield _Leaf(path, _POOL, REQUIRED)
            continue
        if type(None) in _alternatives(field.annotation) and path != "sweep":
            yield _Leaf(path, "group or null", _field_default(field))
        yield from _merged([leaf for group in groups for leaf in _leaves(group, f"{path}.")])


def _merged(leaves: Sequence[_Leaf]) -> Iterator[_Leaf]:
    """Yield each path once, with every type and default that the classes of its group give it."""
    for path in dict.fromkeys(leaf.path for leaf in leaves):
        same = [leaf for leaf in leaves if leaf.path == path]
        kinds = dict.fromkeys(part for leaf in same for part in leaf.kind.split(" or "))
        yield _Leaf(path, " or ".join(kinds), " or ".join(dict.fromkeys(leaf.default for leaf in same)))


def _dimension_leaves() -> Iterator[_Leaf]:
    """Yield every key of a sweep's dimension, over all kinds of dimensions."""
    union, *_ = get_args(Dimension)
    yield from _merged(
        [
            _leaf(f"sweep.space.NAME.{name}", field)
            for dimension in get_args(union)
            for name, field in dimension.model_fields.items()
        ]
    )


def _leaf(path: str, field: FieldInfo) -> _Leaf:
    return _Leaf(path, _type_name(field.annotation, field.metadata), _field_default(field))


def _field_default(field: FieldInfo) -> str:
    """Return the default of a field as users write it, or REQUIRED."""
    if field.is_required():
        return REQUIRED
    return _shown(to_jsonable_python(field.get_default(call_default_factory=True)))


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


def _default(leaf: _Leaf, values: Mapping[str, Any]) -> str:
    """Return what `values` has for a setting; what its type has where `values` leaves it out."""
    value = _value(values, leaf.path)
    if value is _ABSENT:
        return leaf.default
    return GROUP if leaf.kind.startswith("group") and value is not None else _shown(value)


def _value(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at `path`; _ABSENT below a group that is null and outside of the configuration."""
    node: Any = values
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _ABSENT
        node = node[part]
    return node


def _shown(value: Any) -> str:
    """Return a value in YAML's notation, floats with as few digits as are exact."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
