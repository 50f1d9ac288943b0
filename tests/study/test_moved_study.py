"""Test that a study whose folder or lock goes away stops with one message and loses no trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.studies import CountingSimulator, run_composed_study

from tune.config import compose_overrides
from tune.errors import ConfigurationError, ResumableError
from tune.records.folders import StudyFolder

WORDS = (
    *("+sweep=target_qps", "study.n_trials=3", "study.name=moved", "study.parallel=1"),
    *("load.min_duration_s=60", "load.min_queries=500", "load.concatenate_permutation=false"),
)


def run(runs: Path, before: Callable[[int], None], workers: int = 0) -> list[str]:
    """Run the study, `before` each submission; return its trials."""
    backend = CountingSimulator(compose_overrides(WORDS), before, workers)
    return [outcome.trial_id for outcome in run_composed_study(runs, WORDS, backend)]


def after_two(act: Callable[[], object]) -> Callable[[int], None]:
    """Return what acts before the third submission."""

    def before(number: int) -> None:
        if number == 2:
            act()

    return before


@pytest.mark.slow
@pytest.mark.parametrize(("what", "workers"), [("study", 0), ("trial", 1), ("runs", 0)])
def test_a_folder_that_is_moved_away_stops_the_study(what: str, workers: int, tmp_path: Path) -> None:
    """The folder is that of the study, of the trial that begins, or of all runs."""
    runs = tmp_path / "runs"
    folder, moved = runs / "moved", list[Path]()

    def move() -> None:
        (trial,) = {path.parents[1] for path in folder.glob("*/raw/1") if not list(path.iterdir())}
        moved.append({"study": folder, "trial": trial, "runs": runs}[what])
        moved[0].rename(tmp_path / "there")

    with pytest.raises(ResumableError, match=r"Move it back.* run the same command again") as stopped:
        run(runs, after_two(move), workers)
    (source,) = moved
    assert str(folder) in str(stopped.value)
    assert not source.exists(), "it does not grow again"
    (tmp_path / "there").rename(source)
    before = {path: path.read_bytes() for path in folder.glob("*/outcome.json")}
    assert len(before) == 2
    submitted: list[int] = []
    assert len(run(runs, submitted.append)) == 3
    assert len(submitted) == 1, "what is on record is reused"
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.slow
def test_a_second_driver_is_refused_where_the_lock_was_removed(tmp_path: Path) -> None:
    """The first one locks again what was removed, before it goes on."""
    refused = []

    def remove_then_ask(number: int) -> None:
        if number == 1:
            (tmp_path / "moved" / ".lock").unlink()
        if number == 2:
            with pytest.raises(ConfigurationError, match="another process is running this study"):
                run_composed_study(tmp_path, WORDS)
            refused.append(number)

    assert len(run(tmp_path, remove_then_ask)) == 3
    assert refused


@pytest.mark.slow
def test_a_driver_whose_lock_another_one_took_stops(tmp_path: Path) -> None:
    """Where the second one was faster it runs the study, and the first one leaves its records alone."""
    ended: list[str] = []

    def take() -> None:
        (tmp_path / "moved" / ".lock").unlink()
        ended.extend(outcome.trial_id for outcome in run_composed_study(tmp_path, WORDS))

    with pytest.raises(ResumableError, match=r"\.lock: was removed while this process held it"):
        run(tmp_path, after_two(take))
    assert len(ended) == 3
    outcomes = StudyFolder(tmp_path / "moved").outcomes()
    assert sorted(outcome.trial_id for outcome in outcomes) == sorted(ended)
    assert all(len(outcome.attempts) == 1 for outcome in outcomes)
