"""Every command in the documents runs, in the order in which a reader meets them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTS = (
    "README.md",
    "DESIGN.md",
    "docs/benchmarks.md",
    "docs/capacity.md",
    "docs/client.md",
    "docs/confirm.md",
    "docs/local.md",
    "docs/search.md",
    "docs/simulator.md",
    "docs/slurm.md",
    "docs/sweeps.md",
)
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(root: Path, document: str) -> list[str]:
    lines = "\n".join(BLOCK.findall((root / document).read_text(encoding="utf-8"))).splitlines()
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()]


@pytest.fixture
def elsewhere(tmp_path: Path, root: Path) -> Path:
    """An empty folder that sees the checkout's test data and benchmarks under their documented paths."""
    for name in ("tests", "benchmarks"):
        (tmp_path / name).symlink_to(root / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "fewest"),
    [
        ("README.md", 8),
        ("docs/simulator.md", 2),
        ("docs/capacity.md", 2),
        ("docs/confirm.md", 2),
        ("docs/search.md", 4),
    ],
)
def test_the_commands_of_the_documents_run(root: Path, elsewhere: Path, document: str, fewest: int) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = 0
    for command in commands(root, document):
        if command.startswith("make ") or "cluster=local" in command or _needs_a_cluster(command):
            continue
        done = subprocess.run(
            command,
            shell=True,
            cwd=elsewhere,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran += 1
    assert ran >= fewest


def _needs_a_cluster(command: str) -> bool:
    return "cluster=slurm" in command and "action=plan" not in command


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_cluster_takes_the_commands_that_need_one(root: Path, tmp_path: Path) -> None:
    """What would run for hours is only checked: the cluster would take its jobs."""
    asked = [
        shlex.split(command)
        for document in ("README.md", "docs/slurm.md")
        for command in commands(root, document)
        if _needs_a_cluster(command) and "slurm_rack.py" not in command
    ]
    for words in asked:
        checked = words if "action=preflight" in words else [*words, "action=preflight"]
        done = subprocess.run(
            [sys.executable, *checked[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        assert "The configuration can run" in done.stdout
    assert len(asked) >= 4


@pytest.mark.slow
def test_the_commands_on_real_dynamo_run(root: Path, tmp_path: Path, dynamo: tuple[str, ...]) -> None:
    """The first is the short one; of the others, which take minutes, the plan is rendered."""
    asked = [
        command
        for document in ("README.md", "docs/local.md")
        for command in commands(root, document)
        if "cluster=local" in command
    ]
    for number, command in enumerate(asked):
        words = [*shlex.split(command)[1:], *dynamo, *(["action=plan"] if number else [])]
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert len(asked) >= 3


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
def test_the_live_benchmark_runs(root: Path) -> None:
    words = ["benchmarks/live_against_simulated.py", "1P1D@2", "--duration-s", "4"]
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    live, simulated, ratio = (line.split() for line in done.stdout.splitlines()[-3:])
    assert live[:2] == ["1P1D", "2"]
    assert "live" in live
    assert simulated[0] == "sim"
    assert all(float(figure) > 0 for figure in ratio[1:])


def test_the_make_targets_of_the_documents_exist(root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for document in DOCUMENTS:
        text = (root / document).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets, document


def test_python_commands_of_the_other_documents_name_files_that_exist(root: Path) -> None:
    for document in DOCUMENTS[1:]:
        for command in commands(root, document):
            words = shlex.split(command)
            assert words[0] in {"python", "make"}, command
            if words[0] == "python" and words[1] != "-m":
                assert (root / words[1]).exists(), command


def test_links_between_documents_lead_somewhere(root: Path) -> None:
    for document in DOCUMENTS:
        base = (root / document).parent
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (root / document).read_text(encoding="utf-8")):
            assert (base / target).exists(), f"{document}: {target}"


@pytest.mark.slow
def test_the_documented_sweep_runs(root: Path, tmp_path: Path) -> None:
    example = YAML.findall((root / "docs" / "sweeps.md").read_text(encoding="utf-8"))[0]
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "chunks.yaml").write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "tune", "--config-dir", str(tmp_path), "+sweep=chunks", "study.n_trials=6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reports" / "chunks-sim" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "says"),
    [
        ("simulate.py", [], "default trial"),
        ("fit_step_times.py", [], "prefill llama3.1-405b-nvfp4_gb200_tp4"),
        ("calibrate_published_run.py", [], "TTFT p99, s              4.216"),
        ("search_regret.py", ["--trials", "20", "--seeds", "1", "--optimum", "142.42"], "tpe        20"),
        ("capacity.py", ["--configurations", "1", "--seeds", "1", "--processes", "1"], "1 searches: "),
        ("client_overhead.py", ["--duration-s", "15", "--times", "1", "--repeats", "1"], "added to TTFT"),
    ],
)
def test_the_documented_benchmarks_run(root: Path, script: str, words: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *words],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout, done.stdout
