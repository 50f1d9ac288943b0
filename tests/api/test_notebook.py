"""Execute the example notebook."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest


def execute(notebook: dict[str, Any]) -> list[object]:
    """Run every code cell in one namespace; return the value of each cell's last expression."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    values = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            values.append(_run("".join(cell["source"]), namespace))
    return values


def _run(source: str, namespace: dict[str, Any]) -> object:
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace) if last else None


def load(root: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads((root / "examples" / "study.ipynb").read_text(encoding="utf-8"))
    return notebook


@pytest.mark.slow
def test_the_example_notebook_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = execute(load(root))
    assert len(values) == 5
    table: Any = values[3]
    assert len(table) == len(list((tmp_path / "runs" / "notebook").glob("*/outcome.json")))
    assert values[4] is None


def test_the_example_notebook_has_the_format_that_jupyter_opens(root: Path) -> None:
    notebook = load(root)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] in {"markdown", "code"}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), "outputs are not committed"
