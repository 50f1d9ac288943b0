"""Test that the reason why a study ended is recorded, stated, and forgotten when the study goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.studies import CountingSimulator, FailingBackend, ignore_submission, run_composed_study
from support.synthetic_study import RATE_SPACE, SPLIT_SPACE
from support.synthetic_study import study as study_record

from tune.config import compose_overrides
from tune.errors import ResumableError
from tune.records.folders import StudyFolder
from tune.records.study_end import StudyEnd, StudyEndKind
from tune.report.study_end_text import describe_end
from tune.spec.load import Slo
from tune.spec.space import Search

SURROGATE = Search(name="surrogate", startup_trials=10)
CAPACITIES = {name: dimension for name, dimension in SPLIT_SPACE.items() if name != "target_qps"}

TOO_LARGE = (
    "+sweep=parallelism",
    *("~sweep.space.target_qps", "~sweep.space.decode_tensor_parallel_size"),
    *("sweep.space.prefill_tensor_parallel_size.values=[8]", "sweep.space.prefill_workers.low=20"),
    *("sweep.space.prefill_workers.high=22", "study.baseline=false", "study.name=large"),
)
"""A sweep of three points that all break a rule, so that its trials take no time."""

SHORT = ("load.min_duration_s=120.0", "load.concatenate_permutation=false", "study.name=short")
RATES = ("+sweep=target_qps", "study.parallel=1", *SHORT)


def end_of(runs: Path, name: str) -> StudyEnd | None:
    study = StudyFolder(runs / name).read_study()
    assert study is not None
    return study.ended


@pytest.mark.parametrize("search", ["grid", "random", "tpe"])
def test_a_space_of_three_points_ends_after_three(tmp_path: Path, search: str) -> None:
    words = (*TOO_LARGE, f"search={search}", "study.n_trials=60", "study.parallel=2")
    run_composed_study(tmp_path, words)
    ended = end_of(tmp_path, "large")
    assert ended is not None
    assert (ended.kind, ended.configurations, ended.infeasible) == ("points", 3, 3)
    assert ended.proposed < 60


def test_the_end_of_a_study_that_goes_on_is_the_new_one(tmp_path: Path) -> None:
    words = (*TOO_LARGE, "search=grid", "study.parallel=1")
    run_composed_study(tmp_path, (*words, "study.n_trials=2"))
    ended = end_of(tmp_path, "large")
    assert ended == StudyEnd(kind="trials", proposed=2, configurations=2, infeasible=2)
    run_composed_study(tmp_path, (*words, "study.n_trials=12"))
    ended = end_of(tmp_path, "large")
    assert ended == StudyEnd(kind="points", proposed=3, configurations=3, infeasible=3)


@pytest.mark.slow
def test_an_interrupt_is_recorded(tmp_path: Path) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_composed_study(tmp_path, RATES, CountingSimulator(compose_overrides(RATES), interrupt))
    ended = end_of(tmp_path, "short")
    assert ended == StudyEnd(kind="interrupted", proposed=2, configurations=2, infeasible=0)
    run_composed_study(
        tmp_path, (*RATES, "study.n_trials=3"), CountingSimulator(compose_overrides(RATES), ignore_submission)
    )
    ended = end_of(tmp_path, "short")
    assert ended == StudyEnd(kind="trials", proposed=3, configurations=3, infeasible=0)


@pytest.mark.slow
def test_a_spent_budget_and_failures_are_recorded(tmp_path: Path) -> None:
    with pytest.raises(ResumableError):
        run_composed_study(tmp_path / "budget", (*RATES, "study.max_gpu_hours=60"))
    ended = end_of(tmp_path / "budget", "short")
    assert ended is not None
    assert ended.kind == "budget"
    failing = FailingBackend(compose_overrides(RATES), ignore_submission)
    with pytest.raises(ResumableError):
        run_composed_study(tmp_path / "failures", RATES, failing)
    ended = end_of(tmp_path / "failures", "short")
    assert ended is not None
    assert ended.kind == "failures"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("trials", "all planned trials are on record; a larger study.n_trials goes on"),
        (
            "points",
            "every point of the space that can run is on record after 4 of 12 planned trials; a wider sweep "
            "under this study.name goes on",
        ),
        (
            "gain",
            "another trial is expected to raise the best rate by 0.18 %, less than study.min_gain, after 4 "
            "of 12 planned trials; a smaller study.min_gain goes on",
        ),
        (
            "budget",
            "the budget of 200 GPU-hours is spent after 4 of 12 planned trials; a larger study.max_gpu_hours "
            "goes on",
        ),
        (
            "failures",
            "trials failed in a row after 4 of 12 planned trials; the same command tries them again",
        ),
        (
            "harness",
            "what every trial needs is at fault, after 4 of 12 planned trials; the same command goes on when "
            "it is mended",
        ),
        ("interrupted", "interrupted after 4 of 12 planned trials; the same command goes on"),
    ],
)
def test_every_end_has_a_sentence(kind: StudyEndKind, text: str) -> None:
    gain = 0.0018 if kind == "gain" else None
    end = StudyEnd(kind=kind, proposed=4, configurations=3, infeasible=1, expected_gain_frac=gain)
    record = study_record(max_gpu_hours=200.0, ended=end, n_trials=12, search=SURROGATE)
    assert describe_end(record) == f"{text} (3 different configurations, 1 of them infeasible)"


@pytest.mark.parametrize(
    ("changes", "is_said"),
    [
        ({}, True),
        ({"n_trials": 120}, False),
        ({"space": RATE_SPACE}, False),
        ({"space": CAPACITIES}, False),
        ({"search": SURROGATE}, False),
    ],
)
def test_after_few_trials_at_one_rate_each_the_end_says_what_answers_sooner(
    changes: dict[str, Any], is_said: bool
) -> None:
    end = StudyEnd(kind="trials", proposed=12, configurations=12, infeasible=0)
    text = describe_end(study_record(ended=end, **{"n_trials": 12, **changes}))
    hint = (
        ". With tpe, 12 trials at one rate each are too few to come near the best: load.mode=capacity, under "
        "a study.name of its own, finds the highest rate of each configuration and needs fewer"
    )
    assert text
    assert text.endswith(hint) == is_said
    assert ("load.mode" in text) == is_said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ("With tpe, 12 trials seldom", "32 or more", "search=surrogate, under a study.name of its own")),
        (
            {"slo": Slo(ttft_p99_s=None, tpot_p99_s=None, latency_p99_s=60.0)},
            ("With tpe, 12 trials seldom", "search=surrogate, under a study.name of its own"),
        ),
        ({"search": Search(name="random", startup_trials=10), "n_trials": 40}, ("With random", "60 or more")),
        ({"n_trials": 32}, ()),
        ({"search": SURROGATE}, ()),
        ({"space": {"prefill_workers": SPLIT_SPACE["prefill_workers"]}}, ()),
        ({"n_trials": 31}, ("With tpe, 31 trials seldom",)),
    ],
)
def test_after_few_trials_with_a_capacity_each_the_end_says_how_many_come_near_the_best(
    changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    end = StudyEnd(kind="trials", proposed=12, configurations=12, infeasible=0)
    searched = {"n_trials": 12, "space": CAPACITIES, "base": {"load": {"mode": "capacity"}}}
    text = describe_end(study_record(ended=end, **{**searched, **changes}))
    assert text
    assert ("seldom" in text) == bool(said)
    assert all(words in text for words in said)
    assert "load.mode" not in text, "capacities were searched"


def test_a_study_that_runs_has_no_end() -> None:
    assert describe_end(study_record()) is None
