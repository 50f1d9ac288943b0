"""Test how a simulated trial in a closed loop is measured, judged, ranked and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.composed import composed

from tune.analysis.judge import TrialFacts, judge
from tune.analysis.measure import measure_attempt
from tune.analysis.ranking import rank
from tune.backends.simulated_attempt import simulate_attempt
from tune.loadgen.log_writer import DETAIL_LOG
from tune.records.outcome import Outcome
from tune.report.checked_recommendations import StudyTrials, with_checked_recommendations
from tune.report.sections.tiles import closest_tiles
from tune.report.terminal import render_outcome
from tune.spec.settings import Settings
from tune.study.identity import study_record


def closed(*overrides: str) -> Settings:
    """Return the settings of 60 users without a limit on TTFT."""
    return composed("load.mode=concurrency", "load.concurrency=60", "slo.ttft_p99_s=null", *overrides)


def run(settings: Settings, attempt: Path) -> Outcome:
    """Simulate the trial of `settings` and judge it."""
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    assert calibration is not None
    attempt.mkdir(parents=True)
    probes = simulate_attempt(spec, calibration, attempt, lambda activity: None)
    assert measure_attempt(attempt, spec) == probes
    return judge(spec, probes, TrialFacts(0, "command", (), {"split": "14P4D"}))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return the outcome of 60 users."""
    return run(closed(), tmp_path_factory.mktemp("trial") / "raw" / "1")


def test_a_closed_loop_is_judged_without_loadgen(outcome: Outcome) -> None:
    (probe,) = outcome.probes
    assert (probe.valid, probe.feasible, probe.reason, probe.queries) == (True, True, None, 600)
    assert (probe.target_qps, probe.concurrency, probe.loadgen_result) == (None, 60, None)
    assert (outcome.target_qps, outcome.concurrency, outcome.feasible) == (None, 60, True)
    assert (outcome.capacity_qps.low, outcome.capacity_qps.high) == (None, None)
    assert outcome.completed_qps == pytest.approx(60 / outcome.latency_s.mean, rel=0.1)


def test_the_record_of_a_closed_loop_reads_back(outcome: Outcome) -> None:
    text = outcome.model_dump_json(by_alias=True)
    assert '"target_qps":null,"concurrency":60' in text
    assert Outcome.model_validate_json(text) == outcome


def test_no_logs_of_loadgen_are_written(tmp_path: Path) -> None:
    run(closed(), tmp_path / "raw" / "1")
    assert (tmp_path / "raw" / "1" / "probe-1" / "requests.npz").exists()
    assert not (tmp_path / "raw" / "1" / "probe-1" / DETAIL_LOG).exists()


def test_a_limit_that_users_feel_is_violated(tmp_path: Path) -> None:
    outcome = run(closed("slo.tpot_p99_s=0.02"), tmp_path / "raw" / "1")
    assert (outcome.valid, outcome.feasible) == (True, False)
    assert "TPOT" in (outcome.reason or "")
    assert outcome.bottleneck is not None
    assert outcome.bottleneck.recommendations[-1].text == "fewer users"
    assert outcome.bottleneck.recommendations[-1].overrides == ("load.concurrency=57",)


def test_room_under_the_limits_is_for_more_users(outcome: Outcome) -> None:
    assert outcome.bottleneck is not None
    assert outcome.bottleneck.kind == "users"
    assert [r.overrides for r in outcome.bottleneck.recommendations] == [("load.concurrency=63",)]
    settings = closed()
    spec, calibration = settings.trial_spec, settings.cluster.calibration
    checked = with_checked_recommendations(outcome, spec, StudyTrials(()), calibration)
    assert checked == outcome


def test_words_name_the_users(outcome: Outcome) -> None:
    record = study_record(closed(), "users-sim", ())
    text = render_outcome(outcome, closed().slo, record)
    assert text.startswith("14P4D  60 users  simulator")
    assert "LoadGen   none: a closed loop of 60 users, " in text
    assert "bottleneck: none, only the number of users" in text
    (tile,) = [tile for tile in closest_tiles(record, outcome) if tile.label == "Closed loop"]
    assert (tile.value, tile.unit) == ("60", "users")
    assert tile.note.endswith(" queries/s completed")


def test_ranking_says_the_users(outcome: Outcome) -> None:
    (row,) = rank([outcome])
    assert (row["target_qps"], row["concurrency"]) == (None, 60)
