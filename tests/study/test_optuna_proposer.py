"""Test the Optuna proposer: what it suggests, what it learns from, and that the record rebuilds it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from support.composed import composed
from support.outcomes import made_up

from tune.analysis.judge import TrialFacts, judge_unmeasured
from tune.errors import ConfigurationError
from tune.records.outcome import CapacityQps, Constraints, Outcome
from tune.spec.bind import Point, contains
from tune.spec.space import Search
from tune.study.optuna_proposer import OptunaProposer, make_sampler
from tune.study.optuna_space import distributions

SETTINGS = composed("+sweep=pd_split")
assert SETTINGS.sweep is not None
SPACE = SETTINGS.sweep.space
FACTS = TrialFacts(0, "tpe")
INFEASIBLE = judge_unmeasured("infeasible", SETTINGS.trial_spec, "breaks a rule", FACTS)
FAILED = judge_unmeasured("failed", SETTINGS.trial_spec, "node down", FACTS)


def outcome_at(point: Point) -> Outcome:
    """Return a made-up outcome: throughput grows with the rate, TTFT with the rate per prefill worker."""
    qps, prefill = float(point["target_qps"]), int(point["prefill_workers"])
    constraints = Constraints(ttft_p99=qps / prefill - 1.1, tpot_p99=qps / (18.5 - prefill) - 4.0)
    return made_up(
        SETTINGS.trial_spec,
        feasible=(constraints.worst() or 0) <= 0,
        output_tps_per_gpu=qps * 8.75,
        constraints=constraints,
    )


def search(name: str, **changed: Any) -> Search:
    return SETTINGS.search.model_copy(update={"name": name, **changed})


def play(proposer: OptunaProposer, numbers: range) -> list[Point]:
    """Suggest and observe in batches of four; return the points."""
    points = []
    for start in range(numbers.start, numbers.stop, 4):
        batch = {n: proposer.suggest(n).point for n in range(start, min(start + 4, numbers.stop))}
        for number, point in batch.items():
            proposer.observe(number, outcome_at(point))
            points.append(point)
    return points


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "random"])
def test_proposer_rebuilt_from_the_record_suggests_the_same(name: str) -> None:
    whole = OptunaProposer(SPACE, search(name), seed=3)
    points = play(whole, range(32))
    rebuilt = OptunaProposer(SPACE, search(name), seed=3)
    for number, point in enumerate(points[:20]):
        rebuilt.add_trial(number, point, name)
        rebuilt.observe(number, outcome_at(point))
    assert play(rebuilt, range(20, 32)) == points[20:]


def test_batch_cut_in_half_is_completed_with_the_same_points() -> None:
    whole, resumed = (OptunaProposer(SPACE, search("tpe"), seed=1) for _ in range(2))
    points = play(whole, range(12))
    batch = [whole.suggest(number).point for number in range(12, 16)]
    for number, point in enumerate(points):
        resumed.add_trial(number, point, "tpe")
        resumed.observe(number, outcome_at(point))
    for number, point in zip((12, 13), batch[:2], strict=True):
        resumed.add_trial(number, point, "tpe")
    assert [resumed.suggest(14).point, resumed.suggest(15).point] == batch[2:]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_suggestions_lie_in_the_space_and_depend_on_the_seed(name: str) -> None:
    points = play(OptunaProposer(SPACE, search(name), seed=0), range(24))
    assert all(contains(SPACE[key], value) for point in points for key, value in point.items())
    assert points == play(OptunaProposer(SPACE, search(name), seed=0), range(24))
    assert points != play(OptunaProposer(SPACE, search(name), seed=1), range(24))


def test_suggestions_of_one_batch_differ() -> None:
    points = play(OptunaProposer(SPACE, search("tpe"), seed=0), range(40))
    assert len({tuple(sorted(point.items())) for point in points}) == 40


@pytest.mark.slow
def test_constraints_steer_the_search() -> None:
    points = play(OptunaProposer(SPACE, search("tpe"), seed=0), range(80))
    early, late = points[:20], points[60:]
    assert sum(outcome_at(p).feasible for p in late) > 2 * sum(outcome_at(p).feasible for p in early)


@pytest.mark.slow
def test_infeasible_outcomes_teach_and_failed_ones_do_not() -> None:
    prefill_workers: dict[str, list[int]] = {}
    for name, outcome in (("infeasible", INFEASIBLE), ("failed", FAILED)):
        proposer = OptunaProposer(SPACE, search("tpe", startup_trials=8), seed=5)
        chosen = []
        for number in range(60):
            point = proposer.suggest(number).point
            right = int(point["prefill_workers"]) >= 9
            proposer.observe(number, outcome if right else outcome_at(point))
            chosen.append(int(point["prefill_workers"]))
        prefill_workers[name] = chosen[40:]
    avoided, ignored = (
        sum(workers >= 9 for workers in prefill_workers[name]) for name in ("infeasible", "failed")
    )
    assert avoided < ignored


def test_the_space_of_a_study_is_the_one_that_optuna_finds() -> None:
    """Optuna compares all trials for it, again for every sampler."""
    space = distributions(SPACE)
    study = optuna.create_study()
    for _ in range(3):
        study.tell(study.ask(space), 0.0)
    trial = study.trials[-1]
    ours = make_sampler(search("tpe"), 3, 30, space).infer_relative_search_space(study, trial)
    theirs = optuna.samplers.TPESampler(multivariate=True).infer_relative_search_space(study, trial)
    assert list(ours.items()) == list(theirs.items())
    assert len(ours) == len(SPACE)


def test_gp_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.study.optuna_proposer.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="search=gp needs torch"):
        OptunaProposer(SPACE, search("gp"), seed=0)


@pytest.mark.parametrize("name", ["surrogate", "grid", None])
def test_search_that_optuna_has_no_sampler_for_is_refused(name: str | None) -> None:
    with pytest.raises(ConfigurationError, match="expected tpe, gp or random"):
        make_sampler(SETTINGS.search.model_copy(update={"name": name}), 0, 0, {})


@pytest.mark.slow
def test_trial_stopped_early_counts_with_its_forecast() -> None:
    """It missed its SLO at a rate that it was never expected to hold, which is no evidence against it."""
    chosen: dict[float, int] = {}
    for capacity_qps in (40.0, 1.0):
        capacity = CapacityQps(
            low=None, high=None, stopped_early=True, estimate=capacity_qps, early_stop=50.0
        )
        proposer = OptunaProposer(SPACE, search("tpe", startup_trials=8), seed=5)
        right = []
        for number in range(60):
            point = proposer.suggest(number).point
            right.append(int(point["prefill_workers"]) >= 9)
            held = made_up(SETTINGS.trial_spec, output_tps_per_gpu=100.0, completed_qps=10.0, valid=False)
            missed = {"constraints": Constraints(ttft_p99=1.2, tpot_p99=-0.3), "capacity_qps": capacity}
            holds = {"constraints": Constraints(ttft_p99=-0.1, tpot_p99=-0.3)}
            update = missed | {"feasible": False} if right[-1] else holds
            proposer.observe(number, held.model_copy(update=update))
        chosen[capacity_qps] = sum(right[40:])
    assert chosen[40.0] > chosen[1.0]
