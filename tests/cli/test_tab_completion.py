"""Test tab completion in bash, for `tune` and `python -m tune`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tune.cli.tab_completion import answer_completion

COMPLETE = """
eval "$({python} -m tune -sc install=bash)"
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
_tune_complete
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "split60").mkdir(parents=True)
    (tmp_path / "runs" / "split60" / "study.json").write_text("{}")
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("rep", ["report", "reports_dir="]),
        ("report study.name=spl", ["study.name=split60"]),
        ("action=conf", ["action=confirm"]),
        ("hardware=gb3", ["hardware=gb300_nvl72"]),
        ("plan load.target_q", ["load.target_qps="]),
        ("+sweep=pd", ["+sweep=pd_split"]),
    ],
)
def test_bash_completes_actions_studies_groups_and_settings(
    folder: Path, line: str, choices: list[str]
) -> None:
    script = COMPLETE.format(python=sys.executable, line=f"{sys.executable} -m tune {line}")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=os.environ, capture_output=True, text=True, check=True
    )
    assert [choice.partition("=14")[0] or choice for choice in sorted(set(done.stdout.split()))] == choices


def test_query_prints_own_choices_and_leaves_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COMP_LINE", "/usr/bin/python3.11 -m tune status study.name=s")
    assert not answer_completion(["-sc", "query=bash"])
    assert capsys.readouterr().out == "study.name=split60\n"
    assert os.environ["COMP_LINE"] == "tune action=status study.name=s"


def test_commands_without_the_flag_are_not_completion() -> None:
    assert not answer_completion(["report", "study.name=x"])
