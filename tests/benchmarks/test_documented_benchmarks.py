"""Run every documented benchmark at its smallest size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "output"),
    [
        ("simulate.py", ["--counts", "1000"], "16 ranks a worker"),
        ("fit_step_times.py", [], "prefill llama3.1-405b-nvfp4_gb200_tp4"),
        ("calibrate_published_run.py", [], "TTFT p99, s              4.216"),
        ("two_published_runs.py", ["--shuffles", "2"], "2 of 2 shuffles"),
        ("deepseek_r1_run.py", ["--shuffles", "1"], "2P4D, 64 queries/s, 1 shuffles"),
        ("deepseek_r1_users.py", [], "12 users  tpot_mean_s            0.003698  0.003691   -0.2%  fitted"),
        ("search_regret.py", ["--trials", "20", "--seeds", "1", "--optimum", "142.42"], "tpe        20"),
        ("capacity.py", ["--configurations", "1", "--seeds", "1", "--processes", "1"], "1 searches: "),
        ("render_recipes.py", ["tests/data/recipes"], "whole, 0 broken, 0 differs, 0 refused"),
        ("client_overhead.py", ["--duration-s", "15", "--times", "1", "--repeats", "1"], "added to TTFT"),
        ("startup_time.py", ["--pairs", "1"], "imports    CPU"),
        ("ask_time.py", ["--trials", "3", "--searches", "surrogate"], "ms at 3;"),
        ("long_study.py", ["--trials", "3", "--log-lines", "1000"], "action=parse, 0 MB"),
        ("page_open_time.py", ["--trials", "20", "--times", "1"], "ms median"),
        ("capacity_study_time.py", ["--trials", "1"], "pools kept     1 trials"),
        (
            "short_probes.py",
            ["--configurations", "1", "--shuffles", "2", "--verdicts", "2", "--processes", "1"],
            "late requests",
        ),
        (
            "search_synthetic_racks.py",
            ["--racks", "0", "--noise-seeds", "1", "--methods", "random", "--processes", "1"],
            "| random | 1 |",
        ),
        ("guaranteed_rates.py", ["--racks", "1", "--processes", "1"], "of fresh runs held"),
        ("calibration_of_search.py", ["best", "--problems", "0"], "10 dimensions"),
        ("gpu_predictions.py", [], "capacity, queries/s: 27.53 / 27.79  -1%"),
        ("gpu_predictions.py", ["--gaps"], "us a token, none off by more than 0.34 ms"),
        ("gpu_predictions.py", ["--rack", "h200_x2_stalls"], "| fresh | 238 / 213  +12% |"),
    ],
)
def test_the_documented_benchmarks_run(script: str, words: list[str], output: str) -> None:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert output in done.stdout, done.stdout
