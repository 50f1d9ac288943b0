"""Test that a cheap action imports no library that only other actions need, and no engine not in use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tune.cli.main import ACTIONS, action_function
from tune.records.folders import StudyFolder
from tune.spec.settings import Settings
from tune.study.identity import study_record

pytestmark = pytest.mark.slow

HEAVY = {"aiohttp", "jinja2", "numba", "optuna", "pandas", "plotly", "scipy", "submitit", "torch"}
ADAPTER = "tune.engines.trtllm.adapter"
OTHER_ADAPTER = "tune.engines.dynamo_mocker.adapter"
HELP = "tune.cli.settings_reference"
WATCHED = {*HEAVY, ADAPTER, OTHER_ADAPTER, HELP, "tune.report.page", "tune.surrogate"}

CODE = """
import json, sys
sys.argv = ["tune", *{words!r}]
from tune.cli.main import run_command_line
code = run_command_line()
print(json.dumps([code, *sorted({watched!r} & sys.modules.keys())]))
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status", "study.name=single-sim"], [0, ADAPTER]),
        (["preflight"], [0, OTHER_ADAPTER, ADAPTER]),  # it lists the stacks of all engines
        (["nonsense"], [2]),
        pytest.param(["--cfg", "job"], [0, HELP], marks=pytest.mark.slow),
        pytest.param(["plan"], [0, ADAPTER], marks=pytest.mark.slow),
        pytest.param(["parse", "logs=LOGS"], [0], marks=pytest.mark.slow),
        pytest.param(["run"], [0, "numba", "scipy", ADAPTER], marks=pytest.mark.slow),
    ],
)
def test_action_imports_only_what_it_needs(
    root: Path, tmp_path: Path, shipped: Settings, words: list[str], expected: list[object]
) -> None:
    logs = root / "tests" / "data" / "loadgen" / "v5.0.25_published"
    words = [word.replace("LOGS", str(logs)) for word in words]
    (tmp_path / "runs").mkdir()
    StudyFolder(tmp_path / "runs" / "single-sim").write_study(study_record(shipped, "single-sim", ()))
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(words=words, watched=WATCHED)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == expected, done.stderr


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_its_function(action: str) -> None:
    assert callable(action_function(action))
