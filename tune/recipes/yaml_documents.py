"""Read a YAML file into documents that know their lines."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import yaml

from tune.core.unreadable_yaml import explain_yaml
from tune.errors import ConfigurationError
from tune.recipes.document import Document, Place, path_of


def read_documents(file: Path) -> list[Document]:
    """Return the YAML documents of a file.

    Raises ConfigurationError where it cannot be read, is no YAML, or states a key twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
        stream = StringIO(text)
        stream.name = str(file)  # what the marks of errors call the file
        nodes = list(yaml.compose_all(stream, Loader=yaml.SafeLoader))
        contents = list(yaml.safe_load_all(text))
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read ({error.strerror}); expected a recipe, a YAML file."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{file}, line {line}: found bytes that are not UTF-8; expected a recipe, a YAML file."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(explain_yaml(error)) from None
    documents = []
    for node, content in zip(nodes, contents, strict=True):
        document = Document(str(file), content, dict(_lines(node, ())))
        _refuse_repeats(document, node, ())
        documents.append(document)
    return documents


def _lines(node: yaml.Node | None, place: Place) -> Iterator[tuple[Place, int]]:
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


def _refuse_repeats(document: Document, node: yaml.Node | None, place: Place) -> None:
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
