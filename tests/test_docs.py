"""Check that every command, link and message in the documents is real."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.slurm_rack import SlurmRack

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (
        *(
            ROOT / name
            for name in (
                "README.md",
                "DESIGN.md",
                "CONTRIBUTING.md",
                "SECURITY.md",
                "CHANGELOG.md",
                "reports/README.md",
            )
        ),
        *sorted((ROOT / "docs").glob("**/*.md")),
    )
]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
YAML = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
GALLERY = "reports/README.md"
"""Commands that made the gallery: they take minutes, and other documents run their like."""
KERNELS = "step_source=aiconfigurator"
RUNNABLE = [
    document
    for document in DOCUMENTS
    if document != GALLERY and BLOCK.search((ROOT / document).read_text(encoding="utf-8"))
]


def commands(document: str) -> list[str]:
    """Return the commands of a document, in the order in which a reader meets them."""
    lines = "\n".join(BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))).splitlines()
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()]


def does(command: str, action: str) -> bool:
    """Return whether a command names an action, as a word or as a setting."""
    return f" {action} " in f"{command} " or f"action={action}" in command


def is_preflighted(command: str) -> bool:
    """Return whether a command can be checked on a cluster; action=bootstrap has tests of its own."""
    started = command.startswith("python -m tune ") and "cluster=slurm" in command
    return started and not any(does(command, action) for action in ("plan", "image", "bootstrap"))


def runs_here(command: str) -> bool:
    """Return whether a command runs on the simulated rack.

    What needs make, Slurm, Dynamo or AIConfigurator has tests of its own.
    """
    slurm = "cluster=slurm" in command and not (does(command, "plan") or does(command, "image"))
    elsewhere = "cluster=local" in command or KERNELS in command
    return command.startswith("python -m tune ") and not elsewhere and not slurm


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    return subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return a folder that sees test data, benchmarks and examples under their documented paths."""
    for name in ("tests", "benchmarks", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "mlperf_llama3.1_405b_dataset_8313_processed_fp16_eval.pkl").write_bytes(b"not read here")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", RUNNABLE)
def test_the_commands_of_a_document_run(elsewhere: Path, document: str) -> None:
    for command in filter(runs_here, commands(document)):
        done = run(command, elsewhere)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_documents_hold_many_commands() -> None:
    counts = {document: len(list(filter(runs_here, commands(document)))) for document in RUNNABLE}
    fewest = {
        "README.md": 10,
        "docs/tutorial.md": 7,
        "docs/simulator.md": 1,
        "docs/how-to/calibrate.md": 2,
        "docs/how-to/capacity.md": 2,
        "docs/how-to/client.md": 1,
        "docs/how-to/confirm.md": 2,
        "docs/how-to/limits.md": 2,
        "docs/how-to/notebook.md": 2,
        "docs/how-to/steps.md": 2,
        "docs/how-to/surrogate.md": 4,
        "docs/how-to/your-deployment.md": 12,
    }
    assert [document for document in fewest if counts[document] < fewest[document]] == []


@pytest.mark.slow
def test_a_cluster_accepts_the_commands_that_need_one(tmp_path: Path, slurm: SlurmRack) -> None:
    """Check, and do not run, what takes hours: the cluster accepts its jobs."""
    checkpoint = str(slurm.folder / "checkpoint")
    needing = [
        shlex.split(command.replace("/lustre/models/llama3.1-405b-instruct-fp4", checkpoint))
        for document in RUNNABLE
        for command in commands(document)
        if is_preflighted(command)
    ]
    for words in needing:
        checked = words if does(shlex.join(words), "preflight") else [*words, "action=preflight"]
        done = subprocess.run(
            [sys.executable, *checked[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        assert "The configuration can run" in done.stdout
    assert len(needing) >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_the_commands_with_measured_kernels_run(elsewhere: Path) -> None:
    needing = [command for document in RUNNABLE for command in commands(document) if KERNELS in command]
    for command in dict.fromkeys(needing):
        done = run(command, elsewhere)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert "-19 to +87 %" in done.stderr
    assert needing


@pytest.mark.slow
def test_the_commands_on_real_dynamo_run(tmp_path: Path, dynamo: tuple[str, ...]) -> None:
    """Run the first, short command; render the plan of the others, which take minutes."""
    needing = [
        command for document in RUNNABLE for command in commands(document) if "cluster=local" in command
    ]
    for number, command in enumerate(dict.fromkeys(needing)):
        words = [*shlex.split(command)[1:], *dynamo]
        if number and not any(word.startswith("action=") for word in words):
            words.append("action=plan")
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert len(needing) >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
def test_the_live_benchmark_runs() -> None:
    words = ["benchmarks/live_against_simulated.py", "1P1D@2", "--duration-s", "4"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    live, simulated, ratio = (line.split() for line in done.stdout.splitlines()[-3:])
    assert live[:2] == ["1P1D", "2"]
    assert "live" in live
    assert simulated[0] == "sim"
    assert all(float(figure) > 0 for figure in ratio[1:])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_make_targets_of_a_document_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / document).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("document", RUNNABLE)
def test_commands_name_programs_and_files_that_exist(document: str) -> None:
    for command in commands(document):
        words = shlex.split(command)
        assert words[0] in {"python", "make", "git", "pre-commit"}, command
        if words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).exists(), command
        if words[:3] == ["python", "-m", "pytest"]:
            named = [word for word in words[3:] if word.startswith("tests")]
            assert all((ROOT / word.partition("::")[0]).exists() for word in named), command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        page = (ROOT / document).parent / name if name else ROOT / document
        assert page.exists(), target
        if anchor:
            assert anchor in _anchors(page), target


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#]+)", index))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").glob("**/*.md")}
    assert pages - {"index.md"} <= linked


def test_settings_in_the_documents_exist() -> None:
    """Hold every `group.setting` in backquotes against the list of all settings."""
    from tune.cli.settings_reference import setting_rows
    from tune.config import compose_overrides

    rows = setting_rows(compose_overrides(()).settings.model_dump(mode="json"))
    paths = {row.path for row in rows}
    known = paths | {path.rpartition(".")[0] for path in paths}
    groups = {path.partition(".")[0] for path in paths if "." in path}
    named = re.compile(rf"`({'|'.join(sorted(groups))})\.([a-z0-9_.]+)(?:=[^`]*)?`")
    unknown = [
        (document, f"{group}.{name}")
        for document in DOCUMENTS
        if document != "CHANGELOG.md"
        for group, name in named.findall((ROOT / document).read_text(encoding="utf-8"))
        if f"{group}.{name}" not in known and name not in {"yaml", "json"}
    ]
    assert unknown == []


@pytest.mark.slow
def test_the_messages_of_the_troubleshooting_page_are_real() -> None:
    """Find every quoted message, between its `...`, among the texts in the code."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    texts = [text for path in (ROOT / "tune").glob("**/*.py") for text in _texts(path)]
    missing = [
        message
        for message in quoted
        for part in message.split(" ... ")
        if not any(part in text for text in texts)
    ]
    assert missing == []
    assert len(quoted) > 50


def _texts(path: Path) -> list[str]:
    """Return every text in a module, those of f-strings with their placeholders as "{}"."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def test_the_actions_and_exit_codes_are_listed() -> None:
    from typing import get_args

    from tune.spec.settings import Action

    page = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert [action for action in get_args(Action) if f"\n| `{action}`" not in page] == []
    assert all(f"\n| {code} |" in page for code in (0, 1, 2, 3, 130))


@pytest.mark.slow
def test_the_documented_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = PYTHON.findall((ROOT / "docs" / "how-to" / "notebook.md").read_text(encoding="utf-8"))
    assert run("python -m tune +sweep=pd_split study.n_trials=2", tmp_path).returncode in {0, 1}
    exec(compile(example, "notebook.md", "exec"), {})


@pytest.mark.slow
def test_every_documented_sweep_composes(tmp_path: Path) -> None:
    from tune.config import compose_overrides

    examples = YAML.findall((ROOT / "docs/how-to/sweeps.md").read_text(encoding="utf-8"))
    (tmp_path / "sweep").mkdir()
    for number, example in enumerate(examples):
        (tmp_path / "sweep" / f"example{number}.yaml").write_text(example, encoding="utf-8")
        settings = compose_overrides([f"+sweep=example{number}"], [str(tmp_path)]).settings
        assert settings.sweep
    assert (settings.load.mode, settings.slo.ttft_p99_s) == ("capacity", 3.0)


@pytest.mark.slow
def test_the_documented_sweep_runs(tmp_path: Path) -> None:
    example = YAML.findall((ROOT / "docs" / "how-to" / "sweeps.md").read_text(encoding="utf-8"))[0]
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
