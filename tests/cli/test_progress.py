"""Test the progress of a study: what a terminal draws, and the plain lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.composed import changed
from support.outcomes import failed, measured
from support.still_clock import StillClock
from support.synthetic_study import RATE_SPACE
from support.synthetic_study import study as study_record

from tune.backends.activity import Activity
from tune.cli import progress
from tune.cli.live_progress import render_progress
from tune.cli.progress import LINE_INTERVAL_S, StudyLines, study_progress, working
from tune.cli.result_colours import coloured
from tune.cli.study_progress import StudyProgress, duration, times_text
from tune.spec.settings import Settings
from tune.spec.space import Search
from tune.study.recorded_end import may_end_early

GOLDEN = Path(__file__).parent / "golden"


HEAD = "14P4D  15.75 queries/s  simulator  trial t1\noutput    137.7 tokens/s/GPU"
TRY = "try       more: split.prefill_workers=15"


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def assert_golden(name: str, console: Console, regenerate: bool) -> None:
    text = "\n".join(line.rstrip() for line in console.export_text(styles=True).split("\n"))
    if regenerate:
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert (GOLDEN / name).read_text(encoding="utf-8") == text


def drawing() -> Console:
    return Console(
        width=110, record=True, file=io.StringIO(), force_terminal=True, color_system="standard", _environ={}
    )


def half_way(progress: StudyProgress, clock: StillClock, shipped: Settings) -> None:
    """Let two trials end, one hold and miss a rate, and ten wait."""
    progress.prepared(3, 85)
    searched = changed(shipped, "load.mode=capacity").trial_spec
    for number in range(2, 14):
        progress.trial_begun(number, searched)
        clock.now_s += 1.5
    progress.trial_ended(measured(2))
    progress.trial_ended(failed(3))
    progress.trial_does(4, Activity("probe", 1, target_qps=13.9, verdict="held"))
    progress.trial_does(4, Activity("probe", 2, target_qps=16.1, full=True, verdict="missed"))
    progress.trial_does(4, Activity("probe", 3, target_qps=15.2, full=True))


def test_drawn_progress_equals_the_golden_text(
    clock: StillClock, shipped: Settings, regenerate_golden: bool
) -> None:
    progress, console = StudyProgress(60, "pd_split-sim", {0, 1}, clock), drawing()
    progress.prepared(34, 85)
    console.print(render_progress(progress))
    half_way(progress, clock, shipped)
    console.print(render_progress(progress))
    single = StudyProgress(1, "single-sim", (), clock)
    single.trial_begun(0, shipped.trial_spec)
    single.trial_does(0, Activity("shuffle", 2, 4))
    console.print(render_progress(single))
    assert_golden("progress.txt", console, regenerate_golden)


def test_colours_of_a_result_equal_the_golden_text(regenerate_golden: bool) -> None:
    console = drawing()
    for verdict in (
        "holds its SLO",
        "holds its SLO in 4 of 5 shuffles",
        "SLO violated: p99 TTFT",
        "invalid: 40 requests",
        "stopped early",
    ):
        text = f"{HEAD}\nverdict   {verdict}\n          p99 TTFT 4.15 s\nbottleneck: prefill\n{TRY}"
        assert coloured(text).plain == text
        console.print(coloured(text))
    assert_golden("result_colours.txt", console, regenerate_golden)


def test_resumed_study_begins_at_what_is_done(clock: StillClock, shipped: Settings) -> None:
    progress = StudyProgress(24, "x", range(16), clock)
    assert (progress.done, progress.remaining_s) == (16, None)
    for number in range(16):
        progress.recorded(measured(number))
    assert (progress.done, progress.remaining_s) == (16, None), "what was on record has taken no time"
    for number in (16, 17):
        progress.trial_begun(number, shipped.trial_spec)
    clock.now_s += 20
    for number in (16, 17):
        progress.trial_ended(measured(number))
        progress.recorded(measured(number))
    assert (progress.done, progress.remaining_s) == (18, 60.0)


def test_preparation_says_when_the_first_trial_begins(clock: StillClock) -> None:
    progress = StudyProgress(12, "x", (), clock, may_end_early=True)
    clock.now_s += 30
    said = []
    for done in range(1, 4):
        progress.prepared(done, 11)
        said.append(times_text(progress))
        clock.now_s += 10
    assert said == ["0:30 passed", "0:40 passed", "0:50 passed, about 1:20 to the first trial"]
    progress.prepared(11, 11)
    assert times_text(progress) == "1:00 passed"


def test_pools_of_earlier_studies_do_not_shorten_the_preparation(clock: StillClock) -> None:
    progress = StudyProgress(12, "x", (), clock)
    for done in range(1, 81):
        clock.now_s += 10 if done > 70 else 0
        progress.prepared(done, 85)
    assert progress.preparation_remaining_s == pytest.approx(5 * 10)


@pytest.mark.parametrize(
    ("changes", "n_trials", "may"),
    [
        ({}, 12, False),
        ({"search": Search(name="surrogate", startup_trials=10)}, 12, True),
        ({"max_gpu_hours": 100.0}, 12, True),
        ({"space": RATE_SPACE}, 27, False),
        ({"space": RATE_SPACE}, 28, True),
    ],
)
def test_the_time_of_a_search_that_may_end_earlier_is_a_limit(
    clock: StillClock, shipped: Settings, changes: dict[str, Any], n_trials: int, may: bool
) -> None:
    early = may_end_early(study_record(**changes), n_trials)
    progress = StudyProgress(n_trials, "x", (), clock, may_end_early=early)
    for number in (0, 1):
        progress.trial_begun(number, shipped.trial_spec)
        clock.now_s += 5
        progress.trial_ended(measured(number))
    about = "at most about" if may else "about"
    assert times_text(progress) == f"0:10 passed, {about} {duration(5 * (n_trials - 2))} remain"


@given(st.floats(0, 1e6))
def test_duration_is_read_back(seconds: float) -> None:
    parts = [int(part) for part in duration(seconds).split(":")]
    assert sum(part * 60**power for power, part in enumerate(reversed(parts))) == round(seconds)
    assert all(part < 60 for part in parts[1:])


def test_plain_lines_come_at_intervals(clock: StillClock, shipped: Settings) -> None:
    said: list[str] = []
    progress = StudyLines(60, "pd_split-sim", {0, 1}, clock, said.append)
    half_way(progress, clock, shipped)
    progress.trial_ended(measured(4))
    assert said == ["pd_split-sim: 2 of 60 trials, trial 2 waits, 0:10 passed"]
    clock.now_s += LINE_INTERVAL_S
    progress.trial_ended(measured(5))
    assert said[1:] == [
        "pd_split-sim: 6 of 60 trials, trial 6 waits, 0:28 passed, about 6:18 remain, "
        "best 125.0 tokens/s/GPU, trial 2"
    ]


def test_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with study_progress(1, "x") as progress:
        assert isinstance(progress, StudyLines)
        progress.recorded(measured(0))
    assert capsys.readouterr().err == ""


def test_a_task_of_unknown_length_is_said_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.001)
    monkeypatch.setattr(progress, "LINE_INTERVAL_S", 0.001)
    said = ""
    with working("writing the report"):
        while said.count("writing the report, 0:00 passed\n") < 2:
            said += capsys.readouterr().err
    capsys.readouterr()
    monkeypatch.setattr(progress, "QUIET_S", 60.0)
    with working("quick"):
        pass
    assert not capsys.readouterr().err
