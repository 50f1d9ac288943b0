"""Test that advice about damaged or missing files of a study leads to the answer that was there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.damage import tear
from support.studies import run_composed_study

from tune.errors import ResumableError
from tune.records.outcome import Outcome

WORDS = (
    *("+sweep=pd_split", "load.mode=capacity", "study.n_trials=1", "study.name=damaged"),
    *("load.min_duration_s=60", "load.min_queries=500", "load.concatenate_permutation=false"),
)
FILE = "Move the file away and run the same command again"
ATTEMPT = r"Move the attempt's folder \(raw/N\) away and run the same command again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """Run a study of one search; return its folder and its answer."""
    runs = tmp_path_factory.mktemp("runs")
    (outcome,) = run_composed_study(runs, WORDS)
    return runs, answer(outcome)


def answer(outcome: Outcome) -> dict[str, object]:
    """Return an outcome without the times and the costs of its attempts."""
    return outcome.model_dump(exclude={"attempts", "gpu_hours", "wall_s", "provenance", "probes"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "advice"),
    [
        ("study.json", tear, FILE),
        ("*/outcome.json", tear, FILE),
        ("*/raw/1/attempt.json", tear, FILE),
        ("*/raw/1/capacity.json", Path.unlink, ATTEMPT),
        ("*/raw/1/probe-1/requests.npz", tear, ATTEMPT),
        ("*/raw/1/probe-1/requests.npz", Path.unlink, ATTEMPT),
        ("*/raw/1/probe-*/shuffles.json", tear, ATTEMPT),
    ],
)
def test_the_advice_about_a_damaged_file_leads_back_to_the_answer(
    name: str,
    damage: Callable[[Path], None],
    advice: str,
    whole: tuple[Path, dict[str, object]],
    tmp_path: Path,
) -> None:
    runs, before = whole
    shutil.copytree(runs, tmp_path / "runs")
    study = tmp_path / "runs" / "damaged"
    if "raw" in name:
        next(study.glob("*/outcome.json")).unlink()
    damaged = min(study.glob(name))
    damage(damaged)
    with pytest.raises(ResumableError, match=advice):
        run_composed_study(tmp_path / "runs", WORDS)
    attempt = next(study.glob("*/raw/1"))
    shutil.move(attempt if advice == ATTEMPT else damaged, tmp_path / "away")
    (after,) = run_composed_study(tmp_path / "runs", WORDS)
    assert answer(after) == before


@pytest.mark.slow
def test_emptied_logs_of_a_run_of_full_length_are_named(tmp_path: Path) -> None:
    """LoadGen called the run INVALID: without its logs it would be one without a verdict."""
    words = ("+sweep=pd_split", "study.n_trials=1", "study.name=damaged", "load.target_qps=14.0")
    (outcome,) = run_composed_study(tmp_path / "runs", words)
    assert outcome.probes[0].loadgen_result is not None
    next(tmp_path.glob("runs/damaged/*/outcome.json")).unlink()
    logs = list(tmp_path.glob("runs/damaged/*/raw/1/probe-1/mlperf_log_*.txt"))
    assert len(logs) == 2
    for log in logs:
        log.write_bytes(b"")
    with pytest.raises(ResumableError, match=f"probe-1: LoadGen's logs hold no verdict; .* {ATTEMPT}"):
        run_composed_study(tmp_path / "runs", words)
    shutil.move(next(tmp_path.glob("runs/damaged/*/raw/1")), tmp_path / "away")
    (after,) = run_composed_study(tmp_path / "runs", words)
    assert answer(after) == answer(outcome)
