"""Test the surrogate proposer where a sweep varies the rate, and in resumed studies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.composed import composed
from support.outcomes import held_at
from support.studies import run_composed_study
from support.suggestions import suggested
from support.surrogate_sweeps import NARROW, QUICK, SWEEP, true_capacity_qps

from tune.records.folders import StudyFolder
from tune.records.posterior_summary import read_posterior
from tune.spec.bind import contains
from tune.spec.space import ChoiceDimension, Dimension, FloatDimension, IntDimension, OrderedDimension
from tune.study.candidate_space import CandidateSpace
from tune.study.candidates import candidates
from tune.study.surrogate_proposer import SurrogateProposer

RATES: dict[str, Dimension] = {
    "float": FloatDimension(kind="float", path="load.target_qps", low=8.0, high=20.0, step=0.5),
    "int": IntDimension(kind="int", path="load.target_qps", low=8, high=20),
    "ordered": OrderedDimension(kind="ordered", path="load.target_qps", values=(8, 12.5, 15)),
    "choice": ChoiceDimension(kind="choice", path="load.target_qps", values=(15.0, 8.0, 12.5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RATES)
def test_at_fixed_rates_a_configuration_and_a_rate_are_suggested(kind: str) -> None:
    fixed = composed("load.mode=fixed", *QUICK[1:])
    assert fixed.cluster.calibration
    split = IntDimension(kind="int", path="split.prefill_workers", low=12, high=14)
    sweep = SWEEP.model_copy(update={"space": {"rate": RATES[kind], "prefill_workers": split}})
    found = candidates(fixed.trial_spec, sweep, 0)
    assert len(found.specs) == 3
    nearby = CandidateSpace(fixed.trial_spec, sweep, found, 0)
    proposer = SurrogateProposer(sweep.space, found, nearby, fixed.cluster.calibration, 0)
    held = 0.0
    for number in range(6):
        point = suggested(proposer, number)
        if point is None:
            break
        rate = float(point["rate"])
        assert contains(sweep.space["rate"], point["rate"])
        assert rate > held
        feasible = rate <= true_capacity_qps(int(point["prefill_workers"]))
        held = rate if feasible else held
        update = {"feasible": feasible, "valid": True, "target_qps": rate}
        proposer.observe(number, held_at(fixed.trial_spec, None).model_copy(update=update))
    assert held >= 12


@pytest.mark.slow
def test_baseline_at_a_rate_outside_the_sweep_is_observed() -> None:
    fixed = composed("load.mode=fixed", *QUICK[1:])
    assert fixed.cluster.calibration
    sweep = SWEEP.model_copy(update={"space": {"rate": RATES["int"]}})
    found = candidates(fixed.trial_spec, sweep, 0)
    nearby = CandidateSpace(fixed.trial_spec, sweep, found, 0)
    proposer = SurrogateProposer(sweep.space, found, nearby, fixed.cluster.calibration, 0)
    proposer.observe(0, held_at(fixed.trial_spec, None))
    point = suggested(proposer, 1)
    assert point
    assert float(point["rate"]) > fixed.trial_spec.load.target_qps
    assert proposer.summarise({0: "t0"}).trials_observed == 1


@pytest.mark.slow
def test_study_at_fixed_rates_resumes_with_the_same_trials(tmp_path: Path) -> None:
    command = ("search=surrogate", *NARROW[:-4], "load.mode=fixed", *QUICK[1:], "study.parallel=2")
    whole = run_composed_study(tmp_path / "whole", (*command, "study.n_trials=6"))
    assert {outcome.source for outcome in whole[1:]} == {"surrogate"}
    posterior = read_posterior(next((tmp_path / "whole").glob("*/study.json")).parent)
    assert posterior
    assert posterior.trials_observed == 6
    run_composed_study(tmp_path / "parts", (*command, "study.n_trials=4"))
    parts = run_composed_study(tmp_path / "parts", (*command, "study.n_trials=6"))
    assert [outcome.trial_id for outcome in parts] == [outcome.trial_id for outcome in whole]


@pytest.mark.slow
def test_study_with_lost_outcomes_resumes_with_the_same_trials_and_posterior(
    tmp_path: Path,
) -> None:
    command = (*NARROW, "study.n_trials=5", "study.parallel=1", "study.min_gain=0.0")
    whole = run_composed_study(tmp_path / "whole", command)
    root = next((tmp_path / "whole").glob("*/study.json")).parent
    proposals = StudyFolder(root).read_proposals()
    found = [proposal.expected_capacity_qps for proposal in proposals]
    assert all(expected and expected.low < expected.median < expected.high for expected in found)
    posterior = read_posterior(root)
    assert posterior
    assert posterior.trials_observed == len({outcome.trial_id for outcome in whole})
    lost = tmp_path / "lost"
    shutil.copytree(tmp_path / "whole", lost)
    copied = lost / root.name
    lines = (copied / "proposals.jsonl").read_text().splitlines()
    (copied / "proposals.jsonl").write_text("\n".join(lines[:3]) + "\n")
    (copied / "posterior.json").unlink()
    for line in lines[3:]:
        shutil.rmtree(copied / json.loads(line)["trial_id"])
    resumed = run_composed_study(lost, command)
    assert [outcome.trial_id for outcome in resumed] == [outcome.trial_id for outcome in whole]
    assert read_posterior(copied) == posterior
