"""Test scripts/install_dynamo.sh where Dynamo is installed, and where a Debian program is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

USED = ("bash", "cmp", "dirname", "mktemp")
PROGRAMS = ("etcd", "nats-server")


def install(root: Path, folder: Path, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script with nothing but the programs in `path`."""
    clean = {key: value for key, value in os.environ.items() if key != "CI"}
    return subprocess.run(
        [root / "scripts" / "install_dynamo.sh", sys.executable, folder],
        env=clean | {"PATH": str(path)} | env,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """Return a PATH of the programs that the script uses when it fetches nothing, without apt-get."""
    path = tmp_path / "path"
    path.mkdir()
    for program in USED:
        found = shutil.which(program)
        assert found
        (path / program).symlink_to(found)
    return path


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """Make a folder as a finished installation leaves it, without Debian's programs."""
    made = tmp_path / "dynamo"
    (made / "bin").mkdir(parents=True)
    shutil.copy(root / "scripts" / "dynamo_requirements.txt", made / "installed")
    return made


def test_where_all_is_there_only_the_model_folder_is_written(
    root: Path, folder: Path, bare_path: Path
) -> None:
    for program in PROGRAMS:
        (folder / "bin" / program).touch(mode=0o755)
    done = install(root, folder, bare_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in folder.iterdir()} == {"bin", "installed", "model"}
    assert (folder / "model" / "tokenizer.json").exists()


@pytest.mark.parametrize(("env", "status"), [({}, 0), ({"CI": "true"}, 1)])
def test_what_cannot_be_had_is_named_and_fails_in_ci(
    env: dict[str, str], status: int, root: Path, folder: Path, bare_path: Path
) -> None:
    done = install(root, folder, bare_path, **env)
    assert done.returncode == status
    assert "skipped: no apt-get to fetch etcd-server with" in done.stderr


def test_every_requirement_is_pinned(root: Path) -> None:
    lines = (root / "scripts" / "dynamo_requirements.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    assert {"ai-dynamo", "ai-dynamo-runtime"} <= {name for name, _ in pins}
    assert "aisimulate" not in dict(pins)
