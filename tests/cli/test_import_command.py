"""Test action=import on the command line: what it writes and says, and that no half-written file is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.command_line import Tune, names_in

RECIPE = Path(__file__).parents[1] / "data" / "recipes" / "schema1.yaml"


@pytest.mark.slow  # starts tune four times
def test_a_study_starts_from_an_imported_recipe(tune: Tune, tmp_path: Path) -> None:
    done = tune("import", f"recipe={RECIPE}", "to=mine")
    assert done.returncode == 0, done.stderr
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")} == {
        f"mine/{group}/example_2p1d.yaml" for group in ("model", "prefill", "decode", "sweep", "recipe")
    }
    assert "Not taken over:\n  line " in done.stdout
    plan = tune("--config-dir", "mine", "+recipe=example_2p1d", "action=plan", "cluster=slurm")
    assert plan.returncode == 0, plan.stderr
    words = ("--config-dir", "mine", "+recipe=example_2p1d", "+sweep=example_2p1d", "study.n_trials=2")
    study = tune(*words, "study.name=mine")
    assert study.returncode == 0, study.stderr
    assert names_in(tmp_path / "runs" / "mine") >= {"study.json"}
    again = tune("import", f"recipe={RECIPE}", "to=mine")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow  # starts tune three times
def test_nothing_is_written_where_an_import_fails(tune: Tune, tmp_path: Path) -> None:
    missing = tune("import", "to=mine")
    assert (missing.returncode, "needs recipe=FILE" in missing.stderr) == (2, True)
    broken = tmp_path / "broken.yaml"
    broken.write_text(RECIPE.read_text().replace("max_num_tokens: 128", "max_num_tokens: -1"))
    refused = tune("import", f"recipe={broken}", "to=mine")
    assert (refused.returncode, "decode.max_num_tokens: found -1" in refused.stderr) == (2, True)
    assert names_in(tmp_path) == {"broken.yaml"}
    other = tmp_path / "mine" / "decode" / "example_2p1d.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("mine: true\n")
    kept = tune("import", f"recipe={RECIPE}", "to=mine")
    assert (kept.returncode, str(Path("mine/decode/example_2p1d.yaml")) in kept.stderr) == (2, True)
    assert other.read_text() == "mine: true\n"
    assert names_in(tmp_path / "mine") == {"decode"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_named(tune: Tune, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o500)
    done = tune("import", f"recipe={RECIPE}", "to=mine")
    assert done.returncode == 2
    assert "mine" in done.stderr
