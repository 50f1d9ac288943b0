"""Test action=confirm as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.accuracy_dataset import write_accuracy_files
from support.command_line import Tune
from support.command_line import names_in as written
from support.local_trials import Start, printed
from support.slurm_rack import SlurmRack
from support.slurm_trials import small, stubbed

STUDY = (
    *("+sweep=pd_split", "study.n_trials=8", "study.parallel=4", "load.dataset.samples=2000"),
    *("load.min_duration_s=60.0", "load.min_queries=2000", "load.concatenate_permutation=false"),
)
CONFIRM = ("action=confirm", "study.name=pd_split-sim", "confirm.configurations=2", "confirm.repeats=2")


@pytest.mark.slow
def test_missing_study_is_named(tune: Tune) -> None:
    done = tune("action=confirm", "study.name=nowhere")
    assert done.returncode == 2
    assert "runs/nowhere: no study there" in done.stderr


@pytest.mark.slow
def test_study_is_confirmed_resumed_and_reported(tune: Tune, tmp_path: Path) -> None:
    study = tune(*STUDY)
    assert study.returncode == 0, study.stderr
    page = tmp_path / "reports" / "pd_split-sim" / "index.html"
    assert "python -m tune action=confirm study.name=pd_split-sim" in page.read_text()

    elsewhere = tune(*CONFIRM, "cluster=local")
    assert elsewhere.returncode == 2
    assert "this command says 'local'" in elsewhere.stderr
    assert (
        "Expected its own backend: python -m tune action=confirm study.name=pd_split-sim" in elsewhere.stderr
    )

    done = tune(*CONFIRM)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 repeats remain, simulated: would cost about " in done.stderr
    repeats = tmp_path / "runs" / "pd_split-sim.confirm"
    found = json.loads((repeats / "confirmation.json").read_text())
    first = found["configurations"][0]
    assert f"load.target_qps={first['guaranteed_qps']!r} load.mode=fixed" in done.stdout
    assert "confirm   Guaranteed at " in done.stdout
    assert 'id="confirmed"' in page.read_text()
    assert "luckiest" not in page.read_text()

    (repeats / first["repeats"][1]["trial_id"] / "outcome.json").unlink()
    again = tune(*STUDY, *CONFIRM)
    assert again.returncode == 0, again.stderr
    assert "1 of 4 repeats remain" in again.stderr
    assert again.stdout == done.stdout
    report = tune("action=report", "study.name=pd_split-sim")
    assert "confirm   Guaranteed at " in report.stdout
    run_it = tune(*first["overrides"], "study.name=one")
    assert run_it.returncode == 0, run_it.stderr
    assert f"{first['guaranteed_qps']:g} queries/s" in run_it.stdout

    status = tune("action=status", "study.name=pd_split-sim.confirm")
    assert "4 of 4 done" in status.stdout
    twice = tune("action=confirm", "study.name=pd_split-sim.confirm")
    assert twice.returncode == 2
    assert written(tmp_path / "runs") == {"pd_split-sim", "pd_split-sim.confirm", "one"}


@pytest.mark.slow
def test_slurm_jobs_confirm_a_slurm_trial(start: Start, slurm: SlurmRack, tmp_path: Path) -> None:
    bracket = ("load.rate_range_qps=[100.0,100.0]", "load.resolution=0.5")
    files = write_accuracy_files(tmp_path, 20)
    prompts = (
        f"load.dataset.path={files.dataset}",
        "load.dataset.samples=20",
        f"cluster.tokenizer={files.tokenizer}",
    )
    words = (*small(queries=500, seconds=5), *bracket, *stubbed(tmp_path / "stub"), *prompts)
    first = start(*slurm.words, *words, "study.name=one")
    said = printed(first)
    assert first.returncode == 0, said
    where = [word for word in words if word.startswith("cluster.")]
    again = start(*slurm.words, *where, "action=confirm", "study.name=one", "confirm.repeats=2")
    said = printed(again)
    assert again.returncode == 0, said
    assert "confirm.configurations: 3 asked, this study has 1" in said
    found = json.loads((tmp_path / "runs" / "one.confirm" / "confirmation.json").read_text())
    (one,) = found["configurations"]
    assert [repeat["verified_qps"] for repeat in one["repeats"]] == [100.0, 100.0]
    assert found["degrees_of_freedom"] == 1
    assert one["guaranteed_qps"]

    gated = start(
        *(
            *slurm.words,
            *where,
            "action=confirm",
            "study.name=one",
            "confirm.repeats=2",
            "confirm.accuracy=true",
        )
    )
    said = printed(gated)
    assert gated.returncode == 1, said
    assert "0 of 2 repeats remain" in said
    assert "The winner is not confirmed: its answers miss the benchmark's accuracy: ROUGE-L 0.0000" in said
    page = (tmp_path / "reports" / "one" / "index.html").read_text()
    assert "The winner is not confirmed: its answers miss" in page
    found = json.loads((tmp_path / "runs" / "one.confirm" / "confirmation.json").read_text())
    assert found["accuracy"]["target_qps"] == one["guaranteed_qps"]
    assert found["accuracy"]["accuracy"]["samples"] == 20
    assert found["configurations"][0]["guaranteed_qps"] is None
