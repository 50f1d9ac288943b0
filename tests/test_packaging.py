"""Test the package as users install it: a wheel in another directory, a fresh checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_wheel_works_in_another_directory(root: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*build, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(root)], check=True
    )
    (wheel,) = tmp_path.glob("tune-*.whl")
    site = tmp_path / "site"
    subprocess.run([*build, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def tune(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tune", *words],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )

    where = subprocess.run(
        [sys.executable, "-c", "import tune; print(tune.__file__)"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
    done = tune("+sweep=pd_split", "study.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "reports" / "pd_split-sim" / "index.html").exists()
    plan = tune("action=plan", "cluster=slurm")
    assert plan.returncode == 0, plan.stderr
    assert {path.name for path in elsewhere.iterdir()} == {"runs", "reports"}


@pytest.mark.slow
def test_make_demo_on_a_fresh_checkout(root: Path, tmp_path: Path) -> None:
    """Copy what git tracks and start from an empty virtual environment; needs a package index."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("this is no git checkout, so nothing says which files belong to it")
    for name in tracked.stdout.split("\0"):
        if name and (root / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, tmp_path / name)
    clean = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        ["make", "demo"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode and "No matching distribution" in done.stderr and not os.environ.get("CI"):
        pytest.skip("no package index is reachable from here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reports/pd_split-sim/index.html" in done.stdout
    assert (tmp_path / "reports" / "pd_split-sim" / "index.html").exists()


@pytest.mark.slow
def test_the_api_reference_has_a_page_for_every_module(root: Path, tmp_path: Path) -> None:
    """`tune` itself has only names of `tune.api`; a `__main__` is a program."""
    done = subprocess.run(
        [sys.executable, "scripts/write_api.py", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sources = [path.relative_to(root) for path in (root / "tune").rglob("*.py") if path.stem != "__main__"]
    names = {str(path.parent if path.stem == "__init__" else path.with_suffix("")) for path in sources}
    pages = {str(path.relative_to(tmp_path).with_suffix("")) for path in tmp_path.rglob("*.html")}
    assert pages == names - {"tune"} | {"index"}
    assert "load_study" in (tmp_path / "tune" / "api.html").read_text(encoding="utf-8")
