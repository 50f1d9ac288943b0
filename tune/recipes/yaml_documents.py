"""Read a YAML file into documents that know their lines."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import yaml

from tune.core.unreadable_yaml import explain_yaml
from tune.errors import ConfigurationError
from tune.recipes.document import Document, KeyPath, path_of


def read_documents(file: Path) -> list[Document]:
    """Return the YAML documents of a file.

    Raises ConfigurationError where it cannot be read, is no YAML, states a key twice, or holds a part of
    itself.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read ({error.strerror}); expected a recipe, a YAML file."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{file}, line {line}: found bytes that are not UTF-8; expected a recipe, a YAML file."
        ) from None
    documents = []
    for node, content in _parsed(str(file), text):
        document = Document(str(file), content, {})
        _note_lines(document, node, ())
        documents.append(document)
    return documents


def read_inner(document: Document, place: KeyPath, text: str) -> dict[str, Any]:
    """Return the mapping in `text`, YAML that is the block at `place` of a document, which learns its lines.

    Raises ConfigurationError where `read_documents` does, and where there is no mapping.
    """
    above = "\n" * document.line(place)
    ((node, content),) = _parsed(document.file, above + text) or [(None, None)]
    _note_lines(document, node, place)
    return dict(document.mapping_at(place, content))


def _parsed(file: str, text: str) -> list[tuple[yaml.Node | None, Any]]:
    """Return root node and content of every YAML document in the text of a file."""
    stream = StringIO(text)
    stream.name = file  # what the marks of errors call the file
    nodes: list[yaml.Node | None] = []
    try:
        nodes += yaml.compose_all(stream, Loader=yaml.SafeLoader)
        for node in filter(None, nodes):
            _refuse_loops(file, node, ())
        return list(zip(nodes, yaml.safe_load_all(text), strict=True))
    except yaml.YAMLError as error:
        raise ConfigurationError(explain_yaml(error)) from None
    except ValueError as error:
        line = next(line for node in nodes for line in _unconstructed(node))
        raise ConfigurationError(
            f"{file}, line {line}: found what YAML takes for a number or a date ({error}); expected one that "
            "there is, or a text in quotes. Nothing was written."
        ) from None
    except RecursionError:
        raise ConfigurationError(
            f"{file}: found lists or mappings in one another too deep to be read; expected a recipe. "
            "Nothing was written."
        ) from None


def _unconstructed(node: yaml.Node | None) -> Iterator[int]:
    """Yield the lines of scalars that stand for no value, such as the date 2026-13-01."""
    if isinstance(node, yaml.ScalarNode):
        try:
            yaml.constructor.SafeConstructor().construct_document(node)
        except ValueError:
            yield node.start_mark.line + 1
    for inner in _inner_nodes(node):
        yield from _unconstructed(inner)


def _inner_nodes(node: yaml.Node | None) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _refuse_loops(file: str, node: yaml.Node, around: tuple[yaml.Node, ...]) -> None:
    """Raise ConfigurationError where an alias stands inside what it names."""
    if any(outer is node for outer in around):
        raise ConfigurationError(
            f"{file}, line {around[-1].start_mark.line + 1}: found an alias inside what it names, the "
            f"anchor of line {node.start_mark.line + 1}; expected parts that do not hold "
            "themselves. Nothing was written."
        )
    for inner in _inner_nodes(node):
        _refuse_loops(file, inner, (*around, node))


def _note_lines(document: Document, node: yaml.Node | None, place: KeyPath) -> None:
    """Note in a document the lines of a node, which stands at `place`, and refuse a key stated twice."""
    document.lines.update(_lines(node, place))
    _refuse_repeats(document, node, place)


def _lines(node: yaml.Node | None, place: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if node is None:
        return
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, key.value)
            yield from _lines(value, inner)
            yield inner, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*place, index))


def _refuse_repeats(document: Document, node: yaml.Node | None, place: KeyPath) -> None:
    """Raise ConfigurationError where a mapping states a key twice: YAML would drop the first in silence."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_repeats(document, item, (*place, index))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise ConfigurationError(
                f"{document.file}, line {line}: {path_of((*place, key.value))}: found a second time, after "
                f"line {seen[key.value]}; expected once. Nothing was written."
            )
        seen[key.value] = line
        _refuse_repeats(document, value, (*place, key.value))
