"""Test the script that makes the environment of the nodes: what it refuses, and what it advises."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.composed import composed

import tune.backends.slurm
from tune.backends.slurm.bootstrap import make_node_environment
from tune.errors import ConfigurationError

SCRIPT = Path(tune.backends.slurm.__file__).with_name("bootstrap.sh")
ROOT = Path(__file__).parents[2]
LACKS = 4

PYTHON = """#!/bin/sh
case "$*" in
*" venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python3" ;;
*download*) exit 1 ;;
*Python.h*) exit {header} ;;
esac
"""
"""Stands for a Python for which LoadGen has no wheel."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a PATH with nothing but what the script itself calls."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("sh", "hostname", "uname", "mkdir", "touch", "rm", "cp"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def program(path: Path, name: str, text: str) -> None:
    (path / name).write_text(text)
    (path / name).chmod(0o755)


def bootstrap(path: Path, folder: Path, checkout: Path = ROOT) -> tuple[int, str]:
    command = ("/bin/sh", str(SCRIPT), str(folder), str(checkout))
    env = {"PATH": str(path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def test_node_without_a_python_is_named(path: Path, tmp_path: Path) -> None:
    program(path, "python3", "#!/bin/sh\nexit 1\n")
    code, said = bootstrap(path, tmp_path / "nodes")
    assert code == LACKS
    assert said.endswith("found no Python 3.11 to 3.13 with venv on the PATH, expected one")
    assert not (tmp_path / "nodes").exists()


def test_folder_of_somebody_else_is_left_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "mine").touch()
    code, said = bootstrap(path, tmp_path / "nodes")
    assert code == LACKS
    assert "is no environment with tune" in said
    assert (tmp_path / "nodes" / "mine").exists()


def test_checkout_that_the_node_does_not_see_is_named(path: Path, tmp_path: Path) -> None:
    code, said = bootstrap(path, tmp_path / "nodes", tmp_path / "elsewhere")
    assert code == LACKS
    assert "elsewhere" in said


@pytest.mark.parametrize(("compiler", "header"), [(False, 0), (True, 1)], ids=["no g++", "no Python.h"])
def test_loadgen_without_wheel_takes_a_compiler(
    compiler: bool, header: int, path: Path, tmp_path: Path
) -> None:
    program(path, "python3", PYTHON.format(header=header))
    if compiler:
        program(path, "g++", "#!/bin/sh\n")
    code, said = bootstrap(path, tmp_path / "nodes")
    assert code == LACKS
    assert "expected g++ and the headers of Python" in said


def test_unfinished_environment_is_made_anew(path: Path, tmp_path: Path) -> None:
    program(path, "python3", PYTHON.format(header=0))
    program(path, "g++", "#!/bin/sh\n")
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / ".tune-begun").touch()
    (tmp_path / "nodes" / "half").touch()
    code, said = bootstrap(path, tmp_path / "nodes")
    assert code == 0
    assert "tune and LoadGen in" in said.splitlines()[-1]
    assert [entry.name for entry in (tmp_path / "nodes").iterdir()] == ["bin"]
    code, said = bootstrap(path, tmp_path / "nodes")
    assert (code, said.endswith("nodes is there already")) == (0, True)


@pytest.mark.parametrize("python", [None, "/usr/bin/python3.12", "/shared/env/python3"])
def test_path_that_names_no_environment_is_refused(python: str | None, tmp_path: Path) -> None:
    words = ["cluster=slurm", f"runs_dir={tmp_path}", f"cluster.python={python or 'null'}"]
    with pytest.raises(ConfigurationError, match=r"expected the interpreter of the environment to make"):
        make_node_environment(composed(*words), lambda _: None)
