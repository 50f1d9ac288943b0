"""Check the files for contributors: hooks, editor settings, the CI workflow and the extras."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import tune
from tune.config.renamed_settings import RENAMED_SETTINGS, RENAMED_VALUES


def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_workflow_covers_every_supported_python(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    versions = workflow["jobs"]["quick"]["strategy"]["matrix"]["python"]
    low, high = project(root)["project"]["requires-python"].split(",")
    assert versions[0] == low.removeprefix(">=")
    major, minor = high.removeprefix("<").split(".")
    assert versions[-1] == f"{major}.{int(minor) - 1}"
    assert [step["run"] for step in workflow["jobs"]["full"]["steps"] if "make" in step.get("run", "")]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on this machine")
def test_scripts_pass_shellcheck(root: Path) -> None:
    scripts = sorted((root / "scripts").glob("*.sh"))
    assert scripts
    subprocess.run(["shellcheck", "--severity=warning", *scripts], check=True)


PACKAGES = {"pdftotext": "poppler-utils"}
"""Debian's packages of programs that have another name."""


def test_the_slow_job_has_every_program_without_which_a_test_is_skipped(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    (install,) = (
        step["run"] for step in workflow["jobs"]["full"]["steps"] if "apt-get" in step.get("run", "")
    )
    tests = "\n".join(path.read_text(encoding="utf-8") for path in sorted((root / "tests").rglob("*.py")))
    programs = set(re.findall(r'skipif\(shutil\.which\("(\w+)"\) is None', tests)) - {"bash"}
    assert programs >= {"shellcheck", "pdftotext"}
    assert {PACKAGES.get(program, program) for program in programs} <= set(install.split())


def test_hooks_need_no_download(root: Path) -> None:
    hooks = yaml.safe_load((root / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].startswith(".venv/bin/")


def test_every_dependency_has_an_upper_bound_and_a_constraint(root: Path) -> None:
    declared = project(root)["project"]
    extras = declared["optional-dependencies"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    for requirement in (
        *declared["dependencies"],
        *extras["test"],
        *extras["gp"],
        *extras["accuracy"],
    ):
        assert ",<" in requirement, requirement
        name = requirement.partition(">=")[0].lower()
        assert name in pinned or requirement in extras["gp"], requirement


def test_the_wheel_ships_its_types(root: Path) -> None:
    assert (root / "tune" / "py.typed").exists()
    version = root / project(root)["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{tune.__version__}"' in version.read_text(encoding="utf-8")


def test_floor_plan_lists_every_package_by_layer(root: Path) -> None:
    contracts = project(root)["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["tune"]]
    plan = (root / "DESIGN.md").read_text(encoding="utf-8").split("## Floor plan")[1].split("```")[1]
    levels: list[set[str]] = []
    for line in plan.strip("\n").splitlines():
        (name, *_) = line[2:].split()
        if line.startswith("|"):
            levels[-1].add(name)
        else:
            levels.append({name})
    assert levels == [set(layer.split(" | ")) for layer in layers]


def test_change_log_names_modules_that_exist(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    table = text.split("### Moved modules")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+) \|$", table, re.MULTILINE)
    named = [name for _, targets in rows for name in re.findall(r"`([a-z_.]+)`", targets)]
    assert len(rows) > 100
    assert [name for name in named if not (root / "tune" / f"{name.replace('.', '/')}.py").exists()] == []


def test_change_log_lists_every_renamed_setting(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    table = text.split("### Renamed settings")[1].split("\n### ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", table, re.MULTILINE)
    values = {old: new for old, new in RENAMED_VALUES.items() if not old.startswith("search.name")}
    assert dict(rows) == {**RENAMED_SETTINGS, **values}
