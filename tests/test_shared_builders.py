"""Hold what tests share in one place: nothing is written twice, no two builders have one name."""

from __future__ import annotations

import ast
import copy
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

MIN_NODES = 12
"""Nodes of the syntax tree from which on a body is more than a call that is passed on."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Renamed(ast.NodeTransformer):
    """Number the names that a function gives itself, in their order."""

    def __init__(self, own: set[str]) -> None:
        self.own, self.numbers = own, dict[str, str]()

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self._number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self._number(node.arg), None)

    def _number(self, name: str) -> str:
        return self.numbers.setdefault(name, f"name {len(self.numbers)}") if name in self.own else name


def own_names(definition: Definition) -> set[str]:
    """Return the arguments and variables of a function."""
    nodes = list(ast.walk(definition))
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return stored | {node.arg for node in nodes if isinstance(node, ast.arg)}


def without_docstrings(definition: Definition) -> Definition:
    """Return a copy of a definition in which no function or class has a docstring."""
    copied = copy.deepcopy(definition)
    for node in ast.walk(copied):
        if isinstance(node, Definition) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return copied


def body_of(definition: Definition) -> str:
    """Return what a function or class does, whatever it, its arguments and its variables are called."""
    bare = without_docstrings(definition)
    if sum(1 for statement in bare.body for _ in ast.walk(statement)) < MIN_NODES:
        return ""
    renamed = Renamed(own_names(bare))
    return "\n".join(ast.dump(renamed.visit(statement)) for statement in bare.body)


def definitions(source: str) -> Iterator[Definition]:
    """Yield the functions and classes of a module, those inside others too."""
    yield from (node for node in ast.walk(ast.parse(source)) if isinstance(node, Definition))


def twice(sources: dict[str, str]) -> list[str]:
    """Return one line for every body that several definitions of the modules `sources` have."""
    found = defaultdict(list)
    for name, source in sources.items():
        for definition in definitions(source):
            found[body_of(definition)].append(f"{name}:{definition.lineno} {definition.name}")
    return [", ".join(places) for body, places in found.items() if body and len(places) > 1]


def sources() -> dict[str, str]:
    """Return the text of every module of the tests."""
    files = (path for path in TESTS.rglob("*.py") if "data" not in path.relative_to(TESTS).parts)
    return {str(path.relative_to(TESTS)): path.read_text(encoding="utf-8") for path in sorted(files)}


def test_no_function_of_the_tests_is_written_twice() -> None:
    assert not twice(sources()), "what several modules need belongs into tests/support, once"


def test_no_two_builders_have_one_name() -> None:
    by_name = defaultdict(list)
    for name, source in sources().items():
        if name.startswith("support/"):
            for node in ast.parse(source).body:
                if isinstance(node, Definition) and not node.name.startswith("_") and node.name != "main":
                    by_name[node.name].append(name)
    assert not {name: modules for name, modules in by_name.items() if len(modules) > 1}


FIRST = '''
def tear(path):
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
'''


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ("tear", "cut", 1),
        ("content", "text", 1),
        ("path", "file", 1),
        ("Leave the first half of a file.", "Tear it.", 1),
        ("def tear(path)", "def tear(path: Path) -> None", 1),
        ("// 2", "// 3", 0),
        ("read_bytes", "read_text", 0),
    ],
)
def test_names_and_docstrings_make_no_other_function(before: str, after: str, count: int) -> None:
    assert len(twice({"first": FIRST, "second": FIRST.replace(before, after)})) == count
