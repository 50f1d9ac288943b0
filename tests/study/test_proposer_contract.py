"""Test what every proposer owes the study, with each search method in the table."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import get_args

import pytest
from support.composed import composed
from support.outcomes import held_at

from tune.analysis.judge import TrialFacts, judge_unmeasured
from tune.errors import ConfigurationError
from tune.records.outcome import Constraints, Outcome
from tune.records.proposals import Proposal
from tune.spec.bind import Point, bind_point, contains
from tune.spec.settings import Settings
from tune.spec.space import ChoiceDimension, IntDimension, OrderedDimension, Search, Sweep
from tune.study.proposer import Proposer, SearchEnd, TrialSuggestion
from tune.study.registry import SEARCH_METHODS, SearchProblem, check_search, make_proposer

SWEEP = Sweep(
    question="Which split?",
    n_trials=4,
    fill_decode=True,
    space={"prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=9, high=15)},
)
QUICK = (
    "load.mode=capacity",
    "load.dataset.samples=1000",
    "load.min_duration_s=30.0",
    "load.min_queries=1000",
    "study.min_gain=0",
)
BUILDABLE = [name for name in SEARCH_METHODS if name != "gp" or find_spec("torch")]

Make = Callable[[], Proposer]


def problem(settings: Settings, name: str, sweep: Sweep = SWEEP) -> SearchProblem:
    search = settings.search.model_copy(update={"name": name})
    return SearchProblem(sweep.space, search, seed=3, settings=settings, sweep=sweep)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return composed(*QUICK)


@pytest.fixture(params=BUILDABLE)
def make(request: pytest.FixtureRequest, settings: Settings) -> Make:
    return lambda: make_proposer(problem(settings, request.param))


def outcome_of(settings: Settings, number: int, point: Point) -> Outcome:
    """Return a measured outcome of a made-up rack on which 14 prefill workers are best."""
    spec = bind_point(settings.trial_spec, SWEEP, point)
    workers = int(point["prefill_workers"])
    capacity_qps = min(1.2 * workers, 4.1 * (18 - workers))
    return held_at(
        spec,
        capacity_qps,
        number,
        output_tps_per_gpu=8.75 * capacity_qps,
        completed_qps=capacity_qps,
        constraints=Constraints(ttft_p99=-0.1, tpot_p99=-0.1),
    )


def play(settings: Settings, proposer: Proposer, numbers: range) -> list[Point]:
    """Suggest and observe one trial after the other, until nothing is suggested."""
    points = []
    for number in numbers:
        suggestion = proposer.suggest(number)
        if isinstance(suggestion, SearchEnd):
            break
        proposer.observe(number, outcome_of(settings, number, suggestion.point))
        points.append(suggestion.point)
    return points


def test_table_lists_every_search_that_settings_allow() -> None:
    (allowed, _) = get_args(Search.model_fields["name"].annotation)
    assert set(SEARCH_METHODS) == set(get_args(allowed))


@pytest.mark.slow
def test_suggestions_are_points_of_the_sweep_in_its_order(settings: Settings, make: Make) -> None:
    for point in play(settings, make(), range(4)):
        assert list(point) == list(SWEEP.space)
        assert all(contains(SWEEP.space[name], value) for name, value in point.items())


def test_proposer_rebuilt_from_the_record_suggests_the_same(
    settings: Settings, make: Make, request: pytest.FixtureRequest
) -> None:
    source = request.node.callspec.params["make"]
    whole = play(settings, make(), range(4))
    assert len(whole) == 4
    rebuilt = make()
    for number, point in enumerate(whole[:2]):
        rebuilt.add_trial(number, point, source)
        rebuilt.observe(number, outcome_of(settings, number, point))
    assert play(settings, rebuilt, range(2, 4)) == whole[2:]


def test_running_trials_are_not_suggested_again_by_search_methods_that_remember(
    settings: Settings, make: Make, request: pytest.FixtureRequest
) -> None:
    proposer = make()
    suggestions = [proposer.suggest(number) for number in range(4)]
    points = [each.point for each in suggestions if isinstance(each, TrialSuggestion)]
    distinct = {tuple(point.values()) for point in points}
    if request.node.callspec.params["make"] in ("grid", "surrogate"):
        assert len(distinct) == len(points) == 4


def test_failed_and_foreign_outcomes_are_accepted(settings: Settings, make: Make) -> None:
    proposer = make()
    failed = judge_unmeasured("failed", settings.trial_spec, "node down", TrialFacts(0, "search"))
    proposer.observe(7, failed)
    assert isinstance(proposer.suggest(0), TrialSuggestion)
    proposer.observe(0, failed)
    assert isinstance(proposer.suggest(1), TrialSuggestion)


def test_summary_and_baseline_prediction_come_together_or_not_at_all(settings: Settings, make: Make) -> None:
    proposer = make()
    play(settings, proposer, range(2))
    baseline = bind_point(settings.trial_spec, SWEEP, {"prefill_workers": 14}).trial_id
    predicts = proposer.baseline_capacity_qps(baseline) is not None
    summary = proposer.summarise({0: "t0", 1: "t1"})
    assert (summary is not None) == predicts
    if summary:
        assert summary.trials_observed == 2
        assert [trial.trial_id for trial in summary.trials] == ["t0", "t1"]


@pytest.mark.parametrize("name", BUILDABLE)
def test_check_accepts_what_the_method_can_search(settings: Settings, name: str) -> None:
    check_search(problem(settings, name))


@pytest.mark.parametrize("name", BUILDABLE)
def test_check_refuses_a_path_that_no_trial_has(settings: Settings, name: str) -> None:
    space = {"nothing": ChoiceDimension(kind="choice", path="prefill.nothing", values=(1, 2))}
    with pytest.raises(ConfigurationError, match=r"prefill\.nothing"):
        check_search(problem(settings, name, SWEEP.model_copy(update={"space": space})))


MIXED = Sweep(
    question="Which graphs?",
    n_trials=6,
    space={
        "graphs": ChoiceDimension(
            kind="choice", path="decode.cuda_graph_config.batch_sizes", values=((1, 2, 4), (64, 128), (512,))
        ),
        "policy": OrderedDimension(
            kind="ordered",
            path="decode.scheduler_config.capacity_scheduler_policy",
            values=(None, "MAX_UTILIZATION"),
        ),
    },
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "surrogate" else ()) for name in BUILDABLE],
)
def test_null_and_lists_are_suggested_recorded_and_added(settings: Settings, name: str) -> None:
    first, second = (make_proposer(problem(settings, name, MIXED)) for _ in range(2))
    for number in range(3):
        suggestion = first.suggest(number)
        assert isinstance(suggestion, TrialSuggestion)
        assert all(contains(MIXED.space[key], value) for key, value in suggestion.point.items())
        spec = bind_point(settings.trial_spec, MIXED, suggestion.point)
        proposal = Proposal(number=number, params=dict(suggestion.point), source=name, trial_id=spec.trial_id)
        recalled = Proposal.model_validate_json(proposal.model_dump_json())
        assert recalled.params == suggestion.point
        second.add_trial(number, recalled.params, name)
        outcome = judge_unmeasured("infeasible", spec, "", TrialFacts(number, name))
        first.observe(number, outcome)
        second.observe(number, outcome)
    ends = [proposer.suggest(3) for proposer in (first, second)]
    assert ends[0] == ends[1]
