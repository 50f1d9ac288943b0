"""Test action=calibrate as a user meets it: from measured runs to a file that a command selects."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

SHORT = ("load.min_duration_s=66.0", "load.concatenate_permutation=false")
PUBLISHED = Path(__file__).parents[1] / "data" / "loadgen" / "v5.0.25_published"

Tune = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def tune(tmp_path: Path) -> Tune:
    """Run `python -m tune` in a folder of its own."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tune", *words],
            cwd=tmp_path,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.slow
def test_calibrated_cluster_reproduces_the_measured_study(tune: Tune, tmp_path: Path) -> None:
    slower = ("cluster.calibration.prefill_scale=0.97", "cluster.calibration.decode_scale=1.2")
    assert tune(*SHORT, *slower, "study.name=measured").returncode == 0
    done = tune("action=calibrate", "calibrate.study=measured", "calibrate.to=own/cluster/rack7.yaml")
    assert done.returncode == 0, done.stderr
    assert "14P4D, 15.75 queries/s, recorded lengths" in done.stdout
    assert "use       python -m tune --config-dir own cluster=rack7\n" in done.stdout
    written = yaml.safe_load((tmp_path / "own" / "cluster" / "rack7.yaml").read_text(encoding="utf-8"))
    assert written["calibration"]["prefill_scale"] == pytest.approx(0.97, rel=0.02)
    assert written["calibration"]["decode_scale"] == pytest.approx(1.2, rel=0.02)
    again = tune("--config-dir", "own", "cluster=rack7", *SHORT)
    assert again.returncode == 0, again.stderr
    assert "runs/single-rack7/" in again.stdout
    twice = tune("action=calibrate", "calibrate.study=measured", "calibrate.to=own/cluster/rack7.yaml")
    assert twice.returncode == 0, twice.stderr


@pytest.mark.slow
def test_logs_of_several_configurations_are_fitted_together(tune: Tune, tmp_path: Path) -> None:
    (tmp_path / "own" / "hardware").mkdir(parents=True)
    (tmp_path / "own" / "hardware" / "mine.yaml").write_text(
        "defaults:\n  - gb200_nvl72\n  - _self_\nname: mine\n", encoding="utf-8"
    )
    for name, *words in (("a", "split.prefill_workers=13"), ("b", "hardware=mine", "load.target_qps=14")):
        done = tune("--config-dir", "own", *SHORT, *words, f"study.name={name}")
        assert done.returncode == 0, done.stderr
    a, b = (next((tmp_path / "runs" / name).glob("*/raw/1/probe-1")) for name in ("a", "b"))
    (tmp_path / "own" / "runs.yaml").write_text(
        f"- {{logs: {a}, overrides: [split.prefill_workers=13]}}\n"
        f"- {{logs: ../{b.relative_to(tmp_path)}, overrides: [hardware=mine, load.target_qps=14]}}\n",
        encoding="utf-8",
    )
    done = tune("--config-dir", "own", "action=calibrate", *SHORT, "calibrate.runs=own/runs.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{a}: 13P4D, 15.75 queries/s, shuffle seeds 0..9" in done.stdout
    assert f"{b.relative_to(tmp_path)}: 14P4D, 14 queries/s, shuffle seeds 0..9" in done.stdout
    assert "use       python -m tune cluster.calibration.prefill_scale=" in done.stdout
    assert not list(tmp_path.glob("*/cluster"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "action=calibrate needs measured runs"),
        (["calibrate.trials=[0]"], "calibrate.study=NAME"),
        (["calibrate.study=none"], "expected calibrate.study=NAME with one of those in runs: none"),
        (["calibrate.logs=nowhere"], "nowhere: no figures of LoadGen found"),
        ([f"calibrate.logs={PUBLISHED}", "load.target_qps=14"], "Add load.target_qps=15.75"),
        (
            [f"calibrate.logs={PUBLISHED}", "calibrate.parameters=[prefil_scale]"],
            "Did you mean prefill_scale?",
        ),
        ([f"calibrate.logs={PUBLISHED}", "calibrate.to=rack7.yaml"], "expected DIR/cluster/NAME.yaml"),
        ([f"calibrate.logs={PUBLISHED}", "cluster=slurm"], "expected cluster=sim"),
        ([f"calibrate.logs={PUBLISHED}", "split.prefill_workers=40"], "breaks rules"),
        (["calibrate.run=a.yaml"], "Did you mean calibrate.runs?"),
        (["calibrate.runs=none.yaml"], "none.yaml cannot be read (No such file or directory)"),
    ],
)
def test_wrong_calibrate_command_says_what_to_do(
    tune: Tune, tmp_path: Path, words: list[str], says: str
) -> None:
    done = tune("action=calibrate", *words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr
    assert not list(tmp_path.iterdir())
