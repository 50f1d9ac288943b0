"""The ledger: what it proposes, what it learns, and that it can be rebuilt."""

from __future__ import annotations

from typing import Any

import pytest

from tune.analysis.judge import judge_failed, judge_infeasible
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.records.outcome import CapacityQps, Constraints, Outcome
from tune.spec.bind import Point, contains
from tune.spec.space import FloatDimension, IntDimension, OrderedDimension, Search
from tune.study.optuna_proposer import OptunaProposer
from tune.study.optuna_samplers import grid_point

SETTINGS = compose_overrides(["+sweep=pd_split"]).settings
assert SETTINGS.sweep is not None
SPACE = SETTINGS.sweep.space
FACTS: dict[str, Any] = {"number": 0, "source": "tpe", "attempts": (), "provenance": {}}
INFEASIBLE = judge_infeasible(SETTINGS.trial_spec, reason="breaks a rule", **FACTS)
FAILED = judge_failed(SETTINGS.trial_spec, reason="node down", **FACTS)


def measured(point: Point) -> Outcome:
    """A stand-in objective: throughput grows with the rate, TTFT breaks past what the prefill pool serves."""
    qps, prefill = float(point["target_qps"]), int(point["prefill_workers"])
    constraints = Constraints(ttft_p99=qps / prefill - 1.1, tpot_p99=qps / (18.5 - prefill) - 4.0)
    return INFEASIBLE.model_copy(
        update={
            "status": "measured",
            "valid": True,
            "feasible": max(constraints.ttft_p99 or 0, constraints.tpot_p99 or 0) <= 0,
            "output_tps_per_gpu": qps * 8.75,
            "constraints": constraints,
        }
    )


def search(name: str, **changed: Any) -> Search:
    return SETTINGS.search.model_copy(update={"name": name, **changed})


def play(ledger: OptunaProposer, numbers: range) -> list[Point]:
    points = []
    for start in range(numbers.start, numbers.stop, 4):
        batch = {n: ledger.propose(n) for n in range(start, min(start + 4, numbers.stop))}
        for number, point in batch.items():
            assert point is not None
            ledger.tell(number, measured(point))
            points.append(point)
    return points


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_ledger_rebuilt_from_the_record_proposes_the_same(name: str) -> None:
    whole = OptunaProposer(SPACE, search(name), seed=3)
    points = play(whole, range(32))
    rebuilt = OptunaProposer(SPACE, search(name), seed=3)
    for number, point in enumerate(points[:20]):
        rebuilt.adopt(number, point, name)
        rebuilt.tell(number, measured(point))
    assert play(rebuilt, range(20, 32)) == points[20:]


def test_a_batch_cut_in_half_is_completed_the_same() -> None:
    whole, resumed = (OptunaProposer(SPACE, search("tpe"), seed=1) for _ in range(2))
    points = play(whole, range(12))
    batch = [whole.propose(number) for number in range(12, 16)]
    for number, point in enumerate(points):
        resumed.adopt(number, point, "tpe")
        resumed.tell(number, measured(point))
    for number, point in zip((12, 13), batch[:2], strict=True):
        assert point is not None
        resumed.adopt(number, point, "tpe")
    assert [resumed.propose(14), resumed.propose(15)] == batch[2:]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_proposals_lie_in_the_space_and_depend_on_the_seed(name: str) -> None:
    points = play(OptunaProposer(SPACE, search(name), seed=0), range(24))
    assert all(contains(SPACE[key], value) for point in points for key, value in point.items())
    assert points == play(OptunaProposer(SPACE, search(name), seed=0), range(24))
    assert points != play(OptunaProposer(SPACE, search(name), seed=1), range(24))


def test_proposals_of_one_batch_differ() -> None:
    points = play(OptunaProposer(SPACE, search("tpe"), seed=0), range(40))
    assert len({tuple(sorted(point.items())) for point in points}) == 40


def test_constraints_steer_the_search() -> None:
    points = play(OptunaProposer(SPACE, search("tpe"), seed=0), range(80))
    early, late = points[:20], points[60:]
    assert sum(measured(p).feasible for p in late) > 2 * sum(measured(p).feasible for p in early)


def test_infeasible_points_teach_and_failed_ones_do_not() -> None:
    told: dict[str, list[int]] = {}
    for name, outcome in (("infeasible", INFEASIBLE), ("failed", FAILED)):
        ledger = OptunaProposer(SPACE, search("tpe", startup_trials=8), seed=5)
        chosen = []
        for number in range(60):
            point = ledger.propose(number)
            assert point is not None
            right = int(point["prefill_workers"]) >= 9
            ledger.tell(number, outcome if right else measured(point))
            chosen.append(int(point["prefill_workers"]))
        told[name] = chosen[40:]
    avoided, ignored = (sum(workers >= 9 for workers in told[name]) for name in ("infeasible", "failed"))
    assert avoided < ignored


def test_telling_an_unknown_trial_is_harmless() -> None:
    OptunaProposer(SPACE, search("tpe"), seed=0).tell(7, INFEASIBLE)


GRID = {
    "a": IntDimension(kind="int", path="x.a", low=1, high=3, step=2),
    "b": OrderedDimension(kind="ordered", path="x.b", values=(64, 128)),
    "q": FloatDimension(kind="float", path="x.q", low=0.5, high=1.1, step=0.3),
}


def test_the_grid_is_walked_once_to_its_end() -> None:
    ledger = OptunaProposer(GRID, search("grid"), seed=0)
    points = [ledger.propose(number) for number in range(13)]
    assert points[12] is None
    assert len({tuple(point.values()) for point in points[:12] if point}) == 12
    assert points[0] == {"a": 1, "b": 64, "q": 0.5}
    assert points[11] == {"a": 3, "b": 128, "q": 1.1}
    assert points[11] == grid_point(GRID, 11)


def test_an_incumbent_in_the_grid_shifts_nothing() -> None:
    ledger = OptunaProposer(GRID, search("grid"), seed=0)
    ledger.adopt(0, {"a": 3, "b": 128, "q": 0.8}, "baseline")
    assert ledger.propose(1) == grid_point(GRID, 0)
    resumed = OptunaProposer(GRID, search("grid"), seed=0)
    resumed.adopt(0, {"a": 3, "b": 128, "q": 0.8}, "baseline")
    first = grid_point(GRID, 0)
    assert first is not None
    resumed.adopt(1, first, "grid")
    assert resumed.propose(2) == grid_point(GRID, 1)


def test_a_grid_over_a_continuous_range_is_one_clear_error() -> None:
    space = {"target_qps": FloatDimension(kind="float", path="load.target_qps", low=6.0, high=26.0)}
    with pytest.raises(ConfigurationError, match=r"sweep.space.target_qps: found a continuous range"):
        OptunaProposer(space, search("grid"), seed=0).propose(0)


def test_gp_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune.study.optuna_samplers.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="search=gp needs torch"):
        OptunaProposer(SPACE, search("gp"), seed=0)


def test_a_deployment_that_was_given_up_teaches_what_was_expected_of_it() -> None:
    """It broke its SLO at a rate that it was never meant to hold, which says nothing against it."""
    chosen: dict[float, int] = {}
    for capacity_qps in (40.0, 1.0):
        found = CapacityQps(low=None, high=None, censored=True, estimate=capacity_qps, early_stop=50.0)
        ledger = OptunaProposer(SPACE, search("tpe", startup_trials=8), seed=5)
        right = []
        for number in range(60):
            point = ledger.propose(number)
            assert point is not None
            right.append(int(point["prefill_workers"]) >= 9)
            broken = {"constraints": Constraints(ttft_p99=1.2, tpot_p99=-0.3), "capacity_qps": found}
            holds = {"constraints": Constraints(ttft_p99=-0.1, tpot_p99=-0.3), "feasible": True}
            came_to = {"status": "measured", "output_tps_per_gpu": 100.0, "completed_qps": 10.0}
            told = came_to | (broken if right[-1] else holds)
            ledger.tell(number, INFEASIBLE.model_copy(update=told))
        chosen[capacity_qps] = sum(right[40:])
    assert chosen[40.0] > chosen[1.0]
