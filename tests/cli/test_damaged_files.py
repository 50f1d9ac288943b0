"""Test that each action names a damaged file of a study, or gives the answer that was there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from support.damage import tear

from tune.cli.main import action_function
from tune.config import compose_overrides
from tune.errors import NegativeResult, TuneError

SHORT = ("load.min_duration_s=60", "load.min_queries=500", "load.concatenate_permutation=false")
STUDIES: Mapping[str, tuple[str, ...]] = {
    "rates": ("+sweep=target_qps", "study.n_trials=3", "study.name=rates", "study.parallel=1", *SHORT),
    "capacity": (
        "+sweep=pd_split",
        "load.mode=capacity",
        "search=tpe",
        "study.n_trials=1",
        "study.name=capacity",
        *SHORT,
    ),
}
STUDY_FILES = ("study.json", "proposals.jsonl", ".lock")
TRIAL_FILES = (
    *("spec.json", "outcome.json", "plan", "plan/processes.json", "raw", "raw/1", "raw/1/attempt.json"),
    *("raw/1/probe-1", "raw/1/probe-1/requests.npz", "raw/1/probe-1/mlperf_log_detail.txt"),
)
CAPACITY_FILES = ("raw/1/capacity.json", "raw/1/probe-1/probe_request.json")
ACTIONS = ("status", "report", "run", "export", "confirm")
ANSWERS = (*STUDY_FILES, "TRIAL/spec.json", "TRIAL/outcome.json")
"""Files that every action reads; the first three actions read the others."""

OUTSIDE = "of somebody else"


def missing(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def empty(path: Path) -> None:
    missing(path)
    path.touch()


def torn(path: Path) -> None:
    if not path.is_dir():
        tear(path)


def garbage(path: Path) -> None:
    missing(path)
    path.write_bytes(bytes(range(256)) * 8)


def of_another_version(path: Path) -> None:
    with suppress(ValueError, OSError):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99, "surprise": [1]}))


def folder(path: Path) -> None:
    missing(path)
    (path / "kept").mkdir(parents=True)


def link(path: Path) -> None:
    missing(path)
    outside = next(parent for parent in path.parents if parent.name == "runs").parent / "outside"
    outside.write_text(OUTSIDE)
    path.symlink_to(outside)


DAMAGES = (
    *(missing, torn, link),
    *(
        pytest.param(damage, marks=pytest.mark.faults)
        for damage in (empty, garbage, of_another_version, folder)
    ),
)
"""Ways of damage; `make faults` runs the rest."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run both studies; return the folder of their runs and reports."""
    base = tmp_path_factory.mktemp("whole")
    for words in STUDIES.values():
        assert act(base, "run", words) in ("", "negative")
    return base


def act(base: Path, action: str, words: tuple[str, ...]) -> str:
    """Run an action; return its error message, "" where it was done. Any other exception fails the test."""
    own = {"export": ("export.to=optuna",), "confirm": ("confirm.configurations=1", "confirm.repeats=2")}
    folders = (f"runs_dir={base / 'runs'}", f"reports_dir={base / 'reports'}")
    words = (f"action={action}", *words, *own.get(action, ()), *folders)
    try:
        action_function(action)(compose_overrides(words))
    except NegativeResult:
        return "negative"
    except TuneError as error:
        return str(error)
    return ""


def ranking(base: Path, study: str) -> list[tuple[str, bool, float]]:
    """Return what the ranking says of each trial."""
    rows = json.loads((base / "reports" / study / "ranking.json").read_text())
    return sorted((row["trial_id"], row["feasible"], row["output_tps_per_gpu"]) for row in rows)


def contents(base: Path, damaged: Path) -> dict[Path, bytes]:
    """Return the records of all trials but what is damaged."""
    return {
        path: path.read_bytes()
        for path in (base / "runs").rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and path.name in ("outcome.json", "spec.json", "attempt.json", "requests.npz", "capacity.json")
        and damaged not in (path, *path.parents)
        and ".confirm" not in str(path)
    }


CASES = [
    *((study, name, False) for study in STUDIES for name in STUDY_FILES),
    *(("rates", f"TRIAL/{name}", judged) for name in TRIAL_FILES for judged in (False, True)),
    *(("capacity", f"TRIAL/{name}", judged) for name in CAPACITY_FILES for judged in (False, True)),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_or_changes_nothing(
    case: tuple[str, str, bool],
    damage: Callable[[Path], None],
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study, name, judged = case
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    root = tmp_path / "runs" / study
    trial = min(root.glob("*/spec.json")).parent
    damaged = trial / name.removeprefix("TRIAL/") if name.startswith("TRIAL/") else root / name
    if judged:
        (trial / "outcome.json").unlink(missing_ok=True)
    if not damaged.exists():
        pytest.skip("this study has no such file")
    before, first = ranking(tmp_path, study), contents(tmp_path, damaged)
    damage(damaged)
    failures = []
    for action in ACTIONS if name in ANSWERS else ACTIONS[:3]:
        shutil.rmtree(tmp_path / "reports" / study, ignore_errors=True)
        words = STUDIES[study] if action == "run" else (f"study.name={study}", *SHORT)
        message = act(tmp_path, action, words)
        if message in ("", "negative"):
            said = trial.name in capsys.readouterr().out.partition("left out")[2]
            ranked = action == "run" or (action == "report" and not (judged or said))
            if ranked and ranking(tmp_path, study) != before:
                failures.append(f"{action}: another ranking in silence")
        elif not any(part in message for part in (str(damaged), str(trial), str(root))):
            failures.append(f"{action}: {message}")
    outside = tmp_path / "outside"
    assert not outside.exists() or outside.read_text() == OUTSIDE
    changed = [
        str(path) for path, content in first.items() if not path.exists() or path.read_bytes() != content
    ]
    assert not failures, failures
    assert not [path for path in changed if "raw" in path], changed
