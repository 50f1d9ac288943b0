"""Test that old names of settings and study folders of an earlier version get one message and exit code 2."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.composed import composed

from tune.config import compose_overrides
from tune.config.renamed_settings import RENAMED_SETTINGS, RENAMED_VALUES
from tune.errors import ConfigurationError

OLD_STUDY = Path(__file__).parents[1] / "data" / "studies" / "v0.1.0" / "single-sim"
"""A study of one trial, written by tune 0.1.0."""

OLD_OVERRIDES = [f"{old}=1" for old in RENAMED_SETTINGS] + list(RENAMED_VALUES)


def run_tune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "tune", *words],
        cwd=folder,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("prefix", ["", "+", "++", "~"])
@pytest.mark.parametrize("override", OLD_OVERRIDES)
def test_old_name_in_an_override_says_the_new_one(override: str, prefix: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        compose_overrides([f"{prefix}{override}"])
    old = override if override in RENAMED_VALUES else override.partition("=")[0]
    new = RENAMED_VALUES.get(old) or RENAMED_SETTINGS[old]
    assert f"{old}: renamed to {new}" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("option", ["[calibrated]", "[ calibrated ]", "'calibrated'", "['calibrated']"])
def test_old_option_in_brackets_or_quotes_says_the_new_one(option: str) -> None:
    with pytest.raises(ConfigurationError, match="search=calibrated: renamed to search=surrogate"):
        compose_overrides([f"search={option}"])


@pytest.mark.slow
def test_new_names_are_settings() -> None:
    words = ["+sweep=pd_split", "load.mode=capacity"]
    shipped = composed(*words).model_dump()
    for new in RENAMED_SETTINGS.values():
        group, key = new.split(".")
        assert key in shipped[group]
    for assignment in RENAMED_VALUES.values():
        assert composed(*words, assignment).search.name == "surrogate"


def test_old_name_in_a_nested_override_says_the_new_one() -> None:
    with pytest.raises(ConfigurationError, match=r"load\.length_seed: renamed to load\.shuffle_seed"):
        compose_overrides(["load={length_seed:3}"])


SWEEP = """\
# @package _global_
sweep:
  question: Which split?
  n_trials: 3
  {key}: true
  space:
    workers: {{kind: int, path: {path}, low: 9, high: 15}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "path", "says"),
    [
        ("rest_to_decode", "split.prefill_workers", "sweep.rest_to_decode: renamed to sweep.fill_decode"),
        (
            "fill_decode",
            "load.length_seed",
            "sweep.space.workers.path=load.length_seed: renamed to load.shuffle",
        ),
    ],
)
def test_old_name_in_a_sweep_of_the_user_says_the_new_one(
    key: str, path: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(SWEEP.format(key=key, path=path))
    with pytest.raises(ConfigurationError, match=says):
        compose_overrides(["+sweep=mine"], [str(tmp_path)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "text", "says"),
    [
        (
            "load",
            "defaults: [mlperf_interactive]\nlength_seed: 3\n",
            "load.length_seed: renamed to load.shuffle",
        ),
        (
            "search",
            "name: calibrated\nstartup_trials: 10\nearly_stop: true\n",
            "search.name=calibrated: renamed",
        ),
        (
            "search",
            "name: tpe\nstartup_trials: 10\nbeat_best: true\n",
            "search.beat_best: renamed to search.early",
        ),
    ],
)
def test_old_name_in_a_group_of_the_user_says_the_new_one(
    group: str, text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        compose_overrides([f"{group}=mine"], [str(tmp_path)])


@pytest.mark.slow
def test_old_name_on_the_command_line_exits_with_2(tmp_path: Path) -> None:
    done = run_tune(tmp_path, "load.length_seed=3", "search=calibrated")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "load.length_seed: renamed to load.shuffle_seed",
        "search=calibrated: renamed to search=surrogate",
        "Nothing was run; use the new names.",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("action=status", "study.name=single-sim"),
        ("action=report", "study.name=single-sim"),
        ("action=confirm", "study.name=single-sim"),
        ("action=cancel", "study.name=single-sim"),
        ("action=calibrate", "calibrate.study=single-sim"),
        ("action=compare", "compare.a=single-sim", "compare.b=single-sim"),
    ],
    ids=lambda words: words[0] if words else "run",
)
def test_study_of_an_earlier_version_is_one_message(words: tuple[str, ...], tmp_path: Path) -> None:
    shutil.copytree(OLD_STUDY, tmp_path / "runs" / "single-sim")
    before = sorted(path.read_bytes() for path in (tmp_path / "runs").rglob("*.json*"))
    done = run_tune(tmp_path, *words)
    assert done.returncode == 2, done.stderr
    message = done.stderr.splitlines()[-1]
    assert ".json: written by tune 0.1.0 in schema 1; this version reads schema 2." in message
    assert "Traceback" not in done.stderr
    assert "pydantic" not in done.stderr
    assert sorted(path.read_bytes() for path in (tmp_path / "runs").rglob("*.json*")) == before
