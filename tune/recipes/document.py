"""Hand out a YAML document part by part, and know of every part its line and whether it was used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tune.errors import ConfigurationError
from tune.recipes.recipe import LeftOut, Lines
from tune.spec.environment import looks_secret, without_secrets

KeyPath = tuple[str | int, ...]
"""Keys and positions that lead from the root of a document to one of its values."""

MOST = 10_000
"""Most workers of a pool, nodes of a role or GPUs of a node that a recipe may state; more than any rack has.
Chosen here."""

_SHOWN_CHARACTERS = 60
_NO_SETTING = "tune has no setting for it"


@dataclass
class Document:
    """Hold the values of a YAML document, the line of each, and the places that a reader has used."""

    file: str
    content: Any
    lines: dict[KeyPath, int]
    used: set[KeyPath] = field(default_factory=set)
    opened: set[KeyPath] = field(default_factory=lambda: {()})
    reasons: dict[KeyPath, str] = field(default_factory=dict)

    def root(self) -> Section:
        """Return the outermost mapping. Raises ConfigurationError where there is none."""
        return Section(self, (), self.mapping_at((), self.content))

    def mapping_at(self, place: KeyPath, value: Any) -> Mapping[str, Any]:
        """Return `value` if it is a mapping with texts as keys. Raises ConfigurationError otherwise."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise self.error(place, self.shown(place, value), "a mapping, one `key: value` a line")
        return value

    def error(self, place: KeyPath, found: str, expected: str) -> ConfigurationError:
        """Return the error for a value that is not what a recipe has there."""
        path = f"{path_of(place)}: " if place else ""
        return ConfigurationError(
            f"{self.file}, line {self.line(place)}: {path}found {found}; expected {expected}. "
            "Nothing was written."
        )

    def line(self, place: KeyPath) -> int:
        """Return the line of a place, or of the nearest part around it that has one."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def lines_of(self, place: KeyPath) -> Lines:
        """Return the lines of a place, up to the next part that is not in it."""
        first, depth = self.line(place), len(place)
        behind = (
            line
            for other, line in self.lines.items()
            if line > first and other[:depth] != place and place[: len(other)] != other
        )
        return Lines(self.file, first, min((line - 1 for line in behind), default=None))

    def left_out(self, reasons: Mapping[str, str]) -> tuple[LeftOut, ...]:
        """Return what no reader used, a mapping that nobody opened as one part.

        `reasons` says why, by the path of a part or of what contains it.
        """
        return self.left_out_of(self.root(), reasons)

    def left_out_of(self, section: Section, reasons: Mapping[str, str]) -> tuple[LeftOut, ...]:
        """Return what no reader used of one section, with reasons as `left_out` has them."""
        return tuple(
            LeftOut(path_of(place), self.shown(place, value), self.line(place), self._reason(place, reasons))
            for place, value in self._unused(section.place, section.content)
        )

    def shown(self, place: KeyPath, value: Any) -> str:
        """Return a value in one short line, "set" where its key says that it is a secret.

        The value of a pair, such as `{name: HF_TOKEN, value: ...}`, has the name beside it as its key.
        """
        key = self._name_beside(place) if place[-1:] == ("value",) else next(reversed(place), "")
        return "set" if value is not None and looks_secret(str(key)) else shown(value)

    def _name_beside(self, place: KeyPath) -> Any:
        around = self.content
        for part in place[:-1]:
            around = around[part]
        return around.get("name", "")

    def _unused(self, place: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
        if place in self.used and place not in self.reasons:
            return
        if place in self.opened and place not in self.reasons and isinstance(value, Mapping | list):
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, part in inner:
                yield from self._unused((*place, key), part)
        else:
            yield place, value

    def _reason(self, place: KeyPath, reasons: Mapping[str, str]) -> str:
        if place in self.reasons:
            return self.reasons[place]
        around = (path_of(place[:depth]) for depth in range(len(place), 0, -1))
        return next((reasons[path] for path in around if path in reasons), _NO_SETTING)


@dataclass(frozen=True)
class Section:
    """Read one mapping of a document; every key that is read counts as used."""

    document: Document
    place: KeyPath
    content: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def section(self, key: str, *, required: bool = False) -> Section:
        """Return the mapping under `key`, an empty one where it is absent.

        Raises ConfigurationError where there is something else, or nothing although it is required.
        """
        place, value = (*self.place, key), self.content.get(key)
        if value is None and not required:
            return Section(self.document, place, {})
        if key not in self.content:
            raise self.missing(key, "a mapping, one `key: value` a line")
        self.document.opened.add(place)
        return Section(self.document, place, self.document.mapping_at(place, value))

    def items(self, key: str) -> Iterator[tuple[KeyPath, Any]]:
        """Yield place and value of the entries of the list under `key`; none where it is absent.

        No entry counts as used. Raises ConfigurationError where there is no list.
        """
        values, place = self.content.get(key), (*self.place, key)
        if values is None:
            return
        if not isinstance(values, list):
            raise self.wrong(key, "a list")
        self.document.opened.add(place)
        for index, value in enumerate(values):
            yield (*place, index), value

    def sections(self, key: str) -> Iterator[Section]:
        """Yield the mappings of the list under `key`; none where it is absent."""
        for place, value in self.items(key):
            self.document.opened.add(place)
            yield Section(self.document, place, self.document.mapping_at(place, value))

    def text(self, key: str) -> str | None:
        """Return the text under `key`, None where it is absent or null."""
        value = self.anything(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def required_text(self, key: str) -> str:
        """Return the text under `key`. Raises ConfigurationError where there is none."""
        value = self.text(key)
        if value is None:
            raise self.missing(key, "a text")
        return value

    def count(self, key: str) -> int | None:
        """Return the whole number under `key`, None where it is absent or null."""
        value = self.anything(key)
        if value is not None and (type(value) is not int or value < 1):
            raise self.wrong(key, "a whole number, 1 or more")
        return value

    def number_of(self, key: str, *, least: int = 1) -> int | None:
        """Return how many workers, nodes or GPUs `key` states, None where it is absent or null."""
        value = self.anything(key)
        if value is not None and (type(value) is not int or not least <= value <= MOST):
            raise self.wrong(key, f"a whole number from {least} to {MOST}")
        return value

    def required_number_of(self, key: str, *, least: int = 1) -> int:
        """Return how many workers, nodes or GPUs `key` states; raise ConfigurationError where it does not."""
        value = self.number_of(key, least=least)
        if value is None:
            raise self.missing(key, f"a whole number from {least} to {MOST}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the truth value under `key`, or `default` where it is absent."""
        value = self.anything(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def anything(self, key: str) -> Any:
        """Return what is under `key`, None where it is absent."""
        if key in self.content:
            self.document.used.add((*self.place, key))
        return self.content.get(key)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return the whole mapping under `key`, an empty one where it is absent."""
        value = self.anything(key)
        return {} if value is None else dict(self.document.mapping_at((*self.place, key), value))

    def accept(self, key: str, *values: Any) -> None:
        """Count `key` as used where its value is one of `values`, which say what is so in any case."""
        found = self.content.get(key)
        if any(type(found) is type(value) and found == value for value in values):
            self.anything(key)

    def leave(self, key: str, reason: str) -> None:
        """Note why `key` is not taken over, although it was read."""
        self.document.reasons[(*self.place, key)] = reason

    def wrong(self, key: str, expected: str) -> ConfigurationError:
        """Return the error for the value under `key`."""
        place = (*self.place, key)
        return self.document.error(place, self.document.shown(place, self.content[key]), expected)

    def missing(self, key: str, expected: str) -> ConfigurationError:
        """Return the error for a key that has to be there."""
        return self.document.error((*self.place, key), "nothing", expected)


def path_of(place: KeyPath) -> str:
    """Return a place as people write it, such as `services[0].env.NAME`."""
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def shown(value: Any) -> str:
    """Return a value in one short line, of mappings only the keys, and no secret."""
    text = without_secrets(_one_line(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _one_line(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_one_line, value))}]"
    return "null" if value is None else str(value).replace("\n", " ")
