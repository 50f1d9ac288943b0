"""Hold that an engine is known by its line of the table alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tune.engines.base import EngineAdapter, EngineFileReader
from tune.engines.registry import adapter_named
from tune.spec.engine import Engine
from tune.spec.engine_table import ENGINES, settings_class


@cache
def code_of(path: Path) -> tuple[tuple[int, str], ...]:
    """Return the words of a file's code, read once in a process."""
    return tuple(words_of_code(path.read_text(encoding="utf-8")))


def words_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every name, import and string of a module; comments and docstrings are prose."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose:
                yield node.lineno, text
            case ast.Name(id=name) | ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.ImportFrom(module=str(module)):
                yield node.lineno, module
            case ast.alias(name=name) | ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield node.lineno, name


def test_only_the_table_names_an_engine_outside_of_its_package(root: Path) -> None:
    """Two readers have words of other programs: InferenceX's frameworks, TensorRT-LLM's own benchmark."""
    packages = [path.parent for path in (root / "tune" / "engines").glob("*/adapter.py")]
    names = re.compile("|".join(package.name for package in packages), re.IGNORECASE)
    naming: dict[str, list[int]] = {}
    for path in sorted((root / "tune").rglob("*.py")):
        for line, word in code_of(path):
            if names.search(word) and path.parent not in packages:
                naming.setdefault(path.relative_to(root).as_posix(), []).append(line)
    readers = [f"tune/recipes/{name}.py" for name in ("formats", "inferencex", "trtllm_slurm")]
    assert list(naming) == [*readers, "tune/spec/engine_table.py"], naming


def test_only_its_package_names_the_program_that_starts_ranks(root: Path) -> None:
    adapters = [adapter_named(name) for name in ENGINES]
    launchers = {each.rank_launcher for each in adapters if isinstance(each, EngineFileReader)}
    naming = {
        path.relative_to(root / "tune").parts[:2]
        for path in (root / "tune").rglob("*.py")
        for _, word in code_of(path)
        if word in launchers
    }
    assert naming == {("engines", "trtllm")}


def test_comments_and_docstrings_are_no_code() -> None:
    source = '"""Of trtllm."""\n# trtllm\nfrom a.trtllm import b\nc = f"x{1}trtllm"\n"""Also trtllm."""\n'
    assert [line for line, word in words_of_code(source) if "trtllm" in word] == [3, 4]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_line_of_the_table_leads_to_settings_and_an_adapter(engine: str) -> None:
    settings = settings_class(engine)
    assert issubclass(settings, Engine)
    assert isinstance(adapter_named(engine), EngineAdapter)
    assert settings.GENERATIONS
    assert set(settings.KEYS.values()) <= settings.model_fields.keys()
