"""Test that a local study with damaged files is read again from what was measured, or the file is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compat.write_records import LIVE_TRIAL, write_live_study
from support.damage import tear

from tune.cli.main import action_function
from tune.config import compose_overrides
from tune.errors import NegativeResult, TuneError

WORDS = (*LIVE_TRIAL, "study.name=live")


def act(base: Path, action: str) -> str:
    """Run an action on the study; return its error message, "" where there is none."""
    folders = (f"runs_dir={base / 'runs'}", f"reports_dir={base / 'reports'}")
    try:
        action_function(action)(compose_overrides((f"action={action}", *WORDS, *folders)))
    except NegativeResult:
        return ""
    except TuneError as error:
        return str(error)
    return ""


def answer(base: Path) -> dict[str, Any]:
    """Return what is on record of the trial, without where its overrides came from."""
    (path,) = base.glob("runs/live/*/outcome.json")
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "provenance"}


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return the folder of a study with one trial, which mock engines ran on this machine."""
    (tmp_path / "runs").mkdir()
    write_live_study(tmp_path / "runs")
    assert act(tmp_path, "run") == "", "it is on record"
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "judged"),
    [
        ("study.json", tear, True),
        ("*/spec.json", tear, True),
        ("*/spec.json", remove, False),
        ("*/outcome.json", tear, True),
        ("*/outcome.json", remove, True),
        ("*/raw/1/attempt.json", tear, True),
        ("*/raw/1/probe-1/requests.npz", tear, False),
        ("*/raw/1/probe-1/requests.npz", remove, False),
    ],
)
def test_a_damaged_file_is_named_or_changes_nothing(
    name: str, damage: Callable[[Path], None], judged: bool, base: Path
) -> None:
    before = answer(base)
    damaged = min((base / "runs" / "live").glob(name))
    if not judged:
        next(base.glob("runs/live/*/outcome.json")).unlink()
    damage(damaged)
    for action in ("status", "report", "run"):
        message = act(base, action)
        assert message == "" or str(damaged) in message, f"{action}: {message}"
    if not message:
        assert answer(base) == before
