"""search=surrogate in a study: a sampler like any other, which leaves what it believes on record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.outcomes import probe
from support.studies import run_composed_study as play

from tune.analysis.judge import judge_failed, judge_infeasible
from tune.capacity.simulator_forecast import LOWEST_FRAC
from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.records.folders import StudyFolder
from tune.records.outcome import CapacityQps, Outcome
from tune.records.posterior_summary import read_posterior
from tune.spec.bind import contains
from tune.spec.settings import Settings
from tune.spec.space import ChoiceDimension, Dimension, FloatDimension, IntDimension, OrderedDimension, Sweep
from tune.study.candidates import MOST_CANDIDATES, candidates
from tune.study.optuna_proposer import OptunaProposer
from tune.study.surrogate_sampler import SurrogateSampler, seen_in

QUICK = (
    "load.mode=capacity",
    "load.dataset.samples=1000",
    "load.min_duration_s=30.0",
    "load.min_queries=1000",
)
SWEEP = Sweep(
    question="Which split?",
    n_trials=4,
    fill_decode=True,
    space={
        "prefill_workers": IntDimension(kind="int", path="split.prefill_workers", low=9, high=15),
    },
)
NARROW = (
    "+sweep=pd_split",
    "~sweep.space.prefill_max_num_tokens",
    "~sweep.space.decode_max_batch_size",
    "~sweep.space.decode_cuda_graphs",
    *QUICK,
)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return compose_overrides([*QUICK]).settings


@pytest.fixture(scope="module")
def learner(settings: Settings) -> SurrogateSampler:
    assert settings.cluster.calibration
    found = candidates(settings.trial_spec, SWEEP, 0)
    return SurrogateSampler(SWEEP.space, found, settings.cluster.calibration, 0)


def ledger(settings: Settings, learner: SurrogateSampler, min_gain: float = 0.0) -> OptunaProposer:
    return OptunaProposer(SWEEP.space, settings.search, 0, learner, min_gain)


def measured(settings: Settings, boundary: float | None, **capacity: object) -> Outcome:
    facts = {"number": 0, "source": "surrogate", "attempts": (), "provenance": {}}
    start = judge_infeasible(settings.trial_spec, reason="none", **facts)  # type: ignore[arg-type]
    found = CapacityQps(low=boundary, high=None, estimate=boundary, censored=False)
    return start.model_copy(
        update={
            "status": "measured",
            "feasible": not capacity.get("censored"),
            "capacity_qps": found.model_copy(update=capacity),
        }
    )


def truth(workers: int) -> float:
    """Prefill binds up to 13 workers, decode from there on."""
    return min(1.2 * workers, 4.1 * (18 - workers))


def played(settings: Settings, of: OptunaProposer, numbers: range, start: int = 14) -> list[int]:
    tried = []
    for number in numbers:
        if number == 0:
            point: object = {"prefill_workers": start}
            of.adopt(0, {"prefill_workers": start}, "baseline")
        else:
            point = of.propose(number)
        if point is None:
            break
        workers = int(point["prefill_workers"])  # type: ignore[index]
        of.tell(number, measured(settings, truth(workers)))
        tried.append(workers)
    return tried


def test_it_tries_no_point_twice_and_ends_when_all_are_known(
    settings: Settings, learner: SurrogateSampler
) -> None:
    tried = played(settings, ledger(settings, learner), range(12), start=10)
    assert sorted(tried) == list(range(9, 16))
    assert 14 in tried[:4], "the best one comes early"


def test_a_rebuilt_ledger_proposes_what_the_first_one_did(
    settings: Settings, learner: SurrogateSampler
) -> None:
    whole = played(settings, ledger(settings, learner), range(4))
    rebuilt = ledger(settings, learner)
    for number, workers in enumerate(whole[:3]):
        rebuilt.adopt(number, {"prefill_workers": workers}, "surrogate")
        rebuilt.tell(number, measured(settings, truth(workers)))
    assert rebuilt.propose(3) == {"prefill_workers": whole[3]}


def test_a_failed_trial_teaches_nothing(settings: Settings, learner: SurrogateSampler) -> None:
    facts = {"number": 1, "source": "surrogate", "attempts": (), "provenance": {}}
    one, other = ledger(settings, learner), ledger(settings, learner)
    for of in (one, other):
        played(settings, of, range(1))
    first = one.propose(1)
    one.tell(1, judge_failed(settings.trial_spec, reason="node down", **facts))  # type: ignore[arg-type]
    assert one.propose(2) == first == other.propose(1)


def test_two_trials_that_were_one_deployment_teach_once(
    settings: Settings, learner: SurrogateSampler
) -> None:
    """As after a failed trial, whose configuration was tried again under another number, and a new start."""
    of = ledger(settings, learner)
    played(settings, of, range(2))
    told = measured(settings, truth(12))
    of.adopt(2, {"prefill_workers": 12}, "surrogate")
    of.tell(2, told)
    once = of.belief({})
    of.adopt(3, {"prefill_workers": 12}, "surrogate")
    of.tell(3, told)
    assert of.belief({}) == once


def test_what_is_not_worth_its_cost_is_not_proposed(settings: Settings, learner: SurrogateSampler) -> None:
    assert len(played(settings, ledger(settings, learner, min_gain=0.05), range(12))) < 7
    assert len(played(settings, ledger(settings, learner, min_gain=9.0), range(12))) == 1


def test_while_trials_run_it_is_not_judged_whether_another_is_worth_its_cost(
    settings: Settings, learner: SurrogateSampler
) -> None:
    of = ledger(settings, learner, min_gain=9.0)
    of.adopt(0, {"prefill_workers": 14}, "baseline")
    points = [of.propose(number) for number in range(1, 7)]
    assert None not in points
    assert len({int(point["prefill_workers"]) for point in points if point}) == 6
    assert of.propose(7) is None, "all seven run"
    for number, workers in enumerate([14, *(int(point["prefill_workers"]) for point in points if point)]):
        of.tell(number, measured(settings, truth(workers)))


def test_outcomes_are_heard_as_what_they_prove(settings: Settings) -> None:
    facts = {"number": 1, "source": "surrogate", "attempts": (), "provenance": {}}
    crashed = judge_infeasible(settings.trial_spec, reason="out of memory", **facts)  # type: ignore[arg-type]
    assert seen_in(crashed) == {"status": "crashed"}
    alone = {"prefill_capacity_qps": 12.6, "decode_capacity_qps": 16.0}
    told = measured(settings, 12.5, prefill=12.6, decode=16.0)
    assert seen_in(told) == {"status": "measured", "qps": 12.5} | alone
    given_up = measured(settings, 9.0, censored=True, early_stop=15.0)
    assert seen_in(given_up) == {"status": "forecast", "qps": 9.0} | dict.fromkeys(alone)
    held = measured(settings, None)
    assert seen_in(held) == {"status": "above", "qps": 15.75}
    missed = held.model_copy(update={"feasible": False, "valid": True})
    assert seen_in(missed) == {"status": "below", "qps": 15.75}
    untrusted = missed.model_copy(update={"valid": False})
    assert seen_in(untrusted) == {"status": "invalid", "qps": 15.75}
    never_held = told.model_copy(update={"feasible": False})
    assert seen_in(never_held) == {"status": "forecast", "qps": 12.5} | alone
    no_rate = untrusted.capacity_qps.model_copy(update={"estimate": 0.0})
    none_held = untrusted.model_copy(update={"capacity_qps": no_rate, "probes": (probe(16.0), probe(2.0))})
    assert seen_in(none_held) == {"status": "below", "qps": LOWEST_FRAC * 16.0}


def test_a_large_space_is_drawn_from_with_the_reference_in_it() -> None:
    composed = compose_overrides(["+sweep=pd_split", "load.mode=capacity"]).settings
    assert composed.sweep
    found = candidates(composed.trial_spec, composed.sweep, 0)
    assert len(found.points) == MOST_CANDIDATES
    assert found.specs[0] == composed.trial_spec
    assert found.features.min() == 0
    assert found.features.max() == 1
    prefill, decode = found.matters
    names = [*composed.sweep.without("load.target_qps").space, "decode workers"]
    assert {name for name, matters in zip(names, prefill, strict=True) if not matters} == {
        "decode_max_batch_size",
        "decode_cuda_graphs",
        "decode workers",
    }
    assert {name for name, matters in zip(names, decode, strict=True) if not matters} == {
        "prefill_workers",
        "prefill_max_num_tokens",
    }
    again = candidates(composed.trial_spec, composed.sweep, 0)
    assert again.points == found.points
    assert candidates(composed.trial_spec, composed.sweep, 1).points != found.points


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
def test_what_its_emulator_does_not_tell_apart_is_refused(
    settings: Settings, paths: tuple[str, ...], values: tuple[str, ...], unlike: str
) -> None:
    space = {path: ChoiceDimension(kind="choice", path=path, values=values) for path in paths}
    with pytest.raises(ConfigurationError, match=rf"differ in {unlike}; .*search=tpe"):
        candidates(settings.trial_spec, SWEEP.model_copy(update={"space": space}), 0)


def test_it_is_the_default_where_the_rate_is_searched_for() -> None:
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
        assert compose_overrides(words).settings.search.name == name


RATES: dict[str, Dimension] = {
    "float": FloatDimension(kind="float", path="load.target_qps", low=8.0, high=20.0, step=0.5),
    "int": IntDimension(kind="int", path="load.target_qps", low=8, high=20),
    "ordered": OrderedDimension(kind="ordered", path="load.target_qps", values=(8, 12.5, 15)),
    "choice": ChoiceDimension(kind="choice", path="load.target_qps", values=(15.0, 8.0, 12.5)),
}


@pytest.mark.parametrize("kind", RATES)
def test_at_fixed_rates_it_proposes_a_configuration_and_a_rate_of_the_sweep(kind: str) -> None:
    fixed = compose_overrides(["load.mode=fixed", *QUICK[1:]]).settings
    assert fixed.cluster.calibration
    split = IntDimension(kind="int", path="split.prefill_workers", low=12, high=14)
    sweep = SWEEP.model_copy(update={"space": {"rate": RATES[kind], "prefill_workers": split}})
    found = candidates(fixed.trial_spec, sweep, 0)
    assert len(found.specs) == 3
    sampler = SurrogateSampler(sweep.space, found, fixed.cluster.calibration, 0)
    of = OptunaProposer(sweep.space, fixed.search, 0, sampler)
    held = 0.0
    for number in range(6):
        point = of.propose(number)
        if point is None:
            break
        rate = float(point["rate"])
        assert contains(sweep.space["rate"], point["rate"])
        assert rate > held
        feasible = rate <= truth(int(point["prefill_workers"]))
        held = rate if feasible else held
        told = measured(fixed, None)
        of.tell(number, told.model_copy(update={"feasible": feasible, "valid": True, "target_qps": rate}))
    assert held >= 12


def test_a_reference_at_a_rate_that_the_sweep_has_not_is_heard_all_the_same() -> None:
    fixed = compose_overrides(["load.mode=fixed", *QUICK[1:]]).settings
    assert fixed.cluster.calibration
    sweep = SWEEP.model_copy(update={"space": {"rate": RATES["int"]}})
    found = candidates(fixed.trial_spec, sweep, 0)
    sampler = SurrogateSampler(sweep.space, found, fixed.cluster.calibration, 0)
    of = OptunaProposer(sweep.space, fixed.search, 0, sampler)
    of.tell(0, measured(fixed, None))
    point = of.propose(1)
    assert point
    assert float(point["rate"]) > fixed.trial_spec.load.target_qps
    belief = of.belief({0: "t0"})
    assert belief
    assert belief.trials_observed == 1


@pytest.mark.slow
def test_a_study_at_fixed_rates_learns_the_rack_and_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    command = ("search=surrogate", *NARROW[:-4], "load.mode=fixed", *QUICK[1:], "study.parallel=2")
    whole = play(tmp_path / "whole", (*command, "study.n_trials=6"))
    assert {outcome.source for outcome in whole[1:]} == {"surrogate"}
    belief = read_posterior(next((tmp_path / "whole").glob("*/study.json")).parent)
    assert belief
    assert belief.trials_observed == 6
    play(tmp_path / "parts", (*command, "study.n_trials=4"))
    parts = play(tmp_path / "parts", (*command, "study.n_trials=6"))
    assert [outcome.trial_id for outcome in parts] == [outcome.trial_id for outcome in whole]


@pytest.mark.slow
def test_a_study_leaves_its_belief_and_goes_on_from_a_lost_outcome_as_if_nothing_had_been(
    tmp_path: Path,
) -> None:
    command = (*NARROW, "study.n_trials=5", "study.parallel=1", "study.min_gain=0.0")
    whole = play(tmp_path / "whole", command)
    root = next((tmp_path / "whole").glob("*/study.json")).parent
    proposals = StudyFolder(root).read_proposals()
    found = [proposal.expected_capacity_qps for proposal in proposals]
    assert all(expected and expected.low < expected.median < expected.high for expected in found)
    belief = read_posterior(root)
    assert belief
    assert belief.trials_observed == len({outcome.trial_id for outcome in whole})
    lost = tmp_path / "lost"
    shutil.copytree(tmp_path / "whole", lost)
    copied = lost / root.name
    lines = (copied / "proposals.jsonl").read_text().splitlines()
    (copied / "proposals.jsonl").write_text("\n".join(lines[:3]) + "\n")
    (copied / "posterior.json").unlink()
    for line in lines[3:]:
        shutil.rmtree(copied / json.loads(line)["trial_id"])
    resumed = play(lost, command)
    assert [outcome.trial_id for outcome in resumed] == [outcome.trial_id for outcome in whole]
    assert read_posterior(copied) == belief
