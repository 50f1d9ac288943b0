"""Test what the surrogate proposer suggests, what it learns of each outcome, and the posterior on record."""

from __future__ import annotations

import pytest
from support.composed import composed
from support.outcomes import held_at, made_up, probe
from support.suggestions import suggested
from support.surrogate_sweeps import QUICK, SWEEP, true_capacity_qps

from tune.analysis.judge import TrialFacts, judge_unmeasured
from tune.capacity.simulator_forecast import MIN_RATE_FRAC
from tune.errors import ConfigurationError
from tune.records.outcome import CapacityQps
from tune.spec.bind import Point, bind_point
from tune.spec.settings import Settings
from tune.spec.space import ChoiceDimension, OrderedDimension
from tune.study import candidates as candidates_module
from tune.study.candidate_space import CandidateSpace
from tune.study.candidates import MAX_CANDIDATES, Candidates, candidates
from tune.study.proposer import SearchEnd, TrialSuggestion
from tune.study.surrogate_proposer import SurrogateProposer, observation_of
from tune.surrogate import prefill_tables
from tune.surrogate.optimizer import Observation


@pytest.fixture(scope="module")
def settings() -> Settings:
    return composed(*QUICK)


@pytest.fixture(scope="module")
def splits(settings: Settings) -> Candidates:
    return candidates(settings.trial_spec, SWEEP, 0)


def surrogate(settings: Settings, splits: Candidates, min_gain: float = 0.0) -> SurrogateProposer:
    """Return a proposer without observations."""
    assert settings.cluster.calibration
    nearby = CandidateSpace(settings.trial_spec, SWEEP, splits, 0)
    return SurrogateProposer(SWEEP.space, splits, nearby, settings.cluster.calibration, 0, min_gain=min_gain)


def play(settings: Settings, proposer: SurrogateProposer, numbers: range, start: int = 14) -> list[int]:
    """Suggest and observe one trial after the other; return the numbers of prefill workers."""
    tried = []
    for number in numbers:
        point: Point | None = {"prefill_workers": start}
        if number == 0:
            proposer.add_trial(0, {"prefill_workers": start}, "baseline")
        else:
            point = suggested(proposer, number)
        if point is None:
            break
        workers = int(point["prefill_workers"])
        proposer.observe(number, held_at(settings.trial_spec, true_capacity_qps(workers)))
        tried.append(workers)
    return tried


@pytest.mark.slow
def test_surrogate_tries_no_point_twice_and_ends_when_all_are_known(
    settings: Settings, splits: Candidates
) -> None:
    tried = play(settings, surrogate(settings, splits), range(12), start=10)
    assert sorted(tried) == list(range(9, 16))
    assert 14 in tried[:4], "the best one comes early"


@pytest.mark.slow
def test_rebuilt_proposer_suggests_what_the_first_one_did(settings: Settings, splits: Candidates) -> None:
    whole = play(settings, surrogate(settings, splits), range(4))
    rebuilt = surrogate(settings, splits)
    for number, workers in enumerate(whole[:3]):
        rebuilt.add_trial(number, {"prefill_workers": workers}, "surrogate")
        rebuilt.observe(number, held_at(settings.trial_spec, true_capacity_qps(workers)))
    assert suggested(rebuilt, 3) == {"prefill_workers": whole[3]}


@pytest.mark.slow
def test_a_rebuilt_proposer_finds_the_neighbours_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 21 points five are drawn and three pools simulated at first; the best point is found anyway."""
    monkeypatch.setattr(candidates_module, "MAX_CANDIDATES", 5)
    monkeypatch.setattr(prefill_tables, "MOST_SIMULATED_FIRST", 3)
    monkeypatch.setattr(prefill_tables, "SIMULATED_FIRST", 3)
    chunk = OrderedDimension(kind="ordered", path="prefill.max_num_tokens", values=(2048, 4096, 8192))
    sweep = SWEEP.model_copy(update={"space": {**SWEEP.space, "chunk": chunk}})
    first = candidates(settings.trial_spec, sweep, 0)
    assert len(first.points) == 5

    def build() -> SurrogateProposer:
        assert settings.cluster.calibration
        nearby = CandidateSpace(settings.trial_spec, sweep, first, 0)
        return SurrogateProposer(sweep.space, first, nearby, settings.cluster.calibration, 0)

    def capacity_qps(point: Point) -> float:
        slower = {2048: 0.8, 4096: 0.9, 8192: 1.0}[int(str(point["chunk"]))]
        return slower * true_capacity_qps(int(str(point["prefill_workers"])))

    whole, points = build(), []
    for number in range(6):
        point = suggested(whole, number)
        assert point
        whole.observe(number, held_at(settings.trial_spec, capacity_qps(point)))
        points.append(point)
    drawn = [dict(point) for point in first.points]
    assert any(dict(point) not in drawn for point in points)
    assert {"prefill_workers": 14, "chunk": 8192} in [dict(point) for point in points]
    rebuilt = build()
    for number, point in enumerate(points[:-1]):
        rebuilt.add_trial(number, point, "surrogate")
        rebuilt.observe(number, held_at(settings.trial_spec, capacity_qps(point)))
    assert suggested(rebuilt, 5) == points[5]


@pytest.mark.slow
def test_suggestion_carries_its_predictions(settings: Settings, splits: Candidates) -> None:
    proposer = surrogate(settings, splits)
    play(settings, proposer, range(1))
    suggestion = proposer.suggest(1)
    assert isinstance(suggestion, TrialSuggestion)
    expected = suggestion.expected_capacity_qps
    assert expected
    assert expected.low < expected.median < expected.high
    assert suggestion.expected_improvement_frac
    assert suggestion.expected_improvement_frac > 0
    assert suggestion.early_stop_below_qps >= 0
    assert proposer.baseline_capacity_qps(splits.specs[0].trial_id)
    assert proposer.baseline_capacity_qps("t0") is None


@pytest.mark.slow
def test_failed_trial_teaches_nothing(settings: Settings, splits: Candidates) -> None:
    failing, undisturbed = surrogate(settings, splits), surrogate(settings, splits)
    for proposer in (failing, undisturbed):
        play(settings, proposer, range(1))
    first = suggested(failing, 1)
    failed = judge_unmeasured("failed", settings.trial_spec, "node down", TrialFacts(1, "surrogate"))
    failing.observe(1, failed)
    assert suggested(failing, 2) == first == suggested(undisturbed, 1)


@pytest.mark.slow
def test_two_trials_of_one_deployment_teach_once(settings: Settings, splits: Candidates) -> None:
    """A failed trial whose configuration is suggested again shares its deployment after a new start."""
    proposer = surrogate(settings, splits)
    play(settings, proposer, range(2))
    outcome = held_at(settings.trial_spec, true_capacity_qps(12))
    proposer.add_trial(2, {"prefill_workers": 12}, "surrogate")
    proposer.observe(2, outcome)
    once = proposer.summarise({})
    for kind in once.kinds:
        assert bind_point(settings.trial_spec, SWEEP, kind.params or {}).trial_id == kind.trial_id
    proposer.add_trial(3, {"prefill_workers": 12}, "surrogate")
    proposer.observe(3, outcome)
    assert proposer.summarise({}) == once


@pytest.mark.slow
def test_trial_below_the_minimum_gain_is_not_suggested(settings: Settings, splits: Candidates) -> None:
    assert len(play(settings, surrogate(settings, splits, min_gain=0.05), range(12))) < 7
    proposer = surrogate(settings, splits, min_gain=9.0)
    assert len(play(settings, proposer, range(12))) == 4, "half of the seven splits are known"
    end = proposer.suggest(12)
    assert isinstance(end, SearchEnd)
    assert end.kind == "gain"
    assert end.expected_gain_frac is not None
    assert 0 <= end.expected_gain_frac < 9


@pytest.mark.slow
def test_minimum_gain_does_not_end_a_study_while_trials_run(settings: Settings, splits: Candidates) -> None:
    proposer = surrogate(settings, splits, min_gain=9.0)
    proposer.add_trial(0, {"prefill_workers": 14}, "baseline")
    points = [suggested(proposer, number) for number in range(1, 7)]
    assert None not in points
    assert len({int(point["prefill_workers"]) for point in points if point}) == 6
    assert suggested(proposer, 7) is None, "all seven run"
    for number, workers in enumerate([14, *(int(point["prefill_workers"]) for point in points if point)]):
        proposer.observe(number, held_at(settings.trial_spec, true_capacity_qps(workers)))


def test_each_outcome_becomes_the_observation_that_it_shows(settings: Settings) -> None:
    facts = TrialFacts(1, "surrogate")
    crashed = judge_unmeasured("infeasible", settings.trial_spec, "out of memory", facts)
    assert observation_of(crashed, 3) == Observation(3, "crashed")
    rates = CapacityQps(low=12.5, high=None, estimate=12.5, prefill=12.6, decode=16.0, stopped_early=False)
    outcome = made_up(settings.trial_spec, capacity_qps=rates)
    assert observation_of(outcome, 3) == Observation(3, "measured", 12.5, 12.6, 16.0)
    rates = CapacityQps(low=9.0, high=None, estimate=9.0, stopped_early=True, early_stop=15.0)
    stopped_early = made_up(settings.trial_spec, capacity_qps=rates, feasible=False)
    assert observation_of(stopped_early, 3) == Observation(3, "forecast", 9.0)
    held = held_at(settings.trial_spec, None)
    assert observation_of(held, 3) == Observation(3, "above", 15.75)
    missed = held.model_copy(update={"feasible": False, "valid": True})
    assert observation_of(missed, 3) == Observation(3, "below", 15.75)
    untrusted = missed.model_copy(update={"valid": False})
    assert observation_of(untrusted, 3) == Observation(3, "invalid", 15.75)
    never_held = outcome.model_copy(update={"feasible": False})
    assert observation_of(never_held, 3) == Observation(3, "forecast", 12.5, 12.6, 16.0)
    no_rate = untrusted.capacity_qps.model_copy(update={"estimate": 0.0})
    none_held = untrusted.model_copy(update={"capacity_qps": no_rate, "probes": (probe(16.0), probe(2.0))})
    assert observation_of(none_held, 3) == Observation(3, "below", MIN_RATE_FRAC * 16.0)


@pytest.mark.slow
def test_large_space_is_sampled_with_the_reference_in_it() -> None:
    settings = composed("+sweep=pd_split", "load.mode=capacity")
    assert settings.sweep
    found = candidates(settings.trial_spec, settings.sweep, 0)
    assert len(found.points) == MAX_CANDIDATES
    assert found.specs[0] == settings.trial_spec
    assert found.features.min() == 0
    assert found.features.max() == 1
    prefill, decode = found.matters
    names = [*settings.sweep.without("load.target_qps").space, "decode workers"]
    assert {name for name, matters in zip(names, prefill, strict=True) if not matters} == {
        "decode_max_batch_size",
        "decode_cuda_graphs",
        "decode workers",
    }
    assert {name for name, matters in zip(names, decode, strict=True) if not matters} == {
        "prefill_workers",
        "prefill_max_num_tokens",
    }
    again = candidates(settings.trial_spec, settings.sweep, 0)
    assert again.points == found.points
    assert candidates(settings.trial_spec, settings.sweep, 1).points != found.points


@pytest.mark.parametrize(
    ("paths", "values", "unlike"),
    [
        (("stack.router_mode",), ("round-robin", "random"), "stack"),
        (("load.api",), ("completions", "chat"), "load"),
        (
            ("prefill.kv_cache_config.dtype", "decode.kv_cache_config.dtype"),
            ("fp8", "auto"),
            "bytes of KV cache a token",
        ),
    ],
)
def test_configurations_that_the_emulator_cannot_tell_apart_are_refused(
    settings: Settings, paths: tuple[str, ...], values: tuple[str, ...], unlike: str
) -> None:
    space = {path: ChoiceDimension(kind="choice", path=path, values=values) for path in paths}
    with pytest.raises(ConfigurationError, match=rf"differ in {unlike}; .*search=tpe"):
        candidates(settings.trial_spec, SWEEP.model_copy(update={"space": space}), 0)


@pytest.mark.slow
def test_surrogate_is_the_default_in_capacity_mode() -> None:
    names = {
        ("+sweep=pd_split",): "tpe",
        ("+sweep=pd_split", "load.mode=capacity"): "surrogate",
        ("+sweep=pd_split", "load.mode=capacity", "search=tpe"): "tpe",
        ("+sweep=pd_split", "cluster=slurm"): "surrogate",
        ("+sweep=target_qps",): "grid",
        ("+sweep=pd_split", "search=surrogate"): "surrogate",
        (): "tpe",
    }
    for words, name in names.items():
        assert composed(*words).search.name == name
