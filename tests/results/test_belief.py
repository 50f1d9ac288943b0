"""`belief.json`, and what a proposal expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tune.errors import RunAgain
from tune.results.belief import (
    Belief,
    HypothesisBelief,
    Interval,
    ParameterBelief,
    TrialBelief,
    read_belief,
    write_belief,
)
from tune.results.proposals import Proposal, append_proposal, read_proposals

WIDE, NARROW = Interval(low=0.5, median=1.0, high=2.0), Interval(low=0.9, median=0.95, high=1.0)
BELIEF = Belief(
    schema=1,
    trials_told=1,
    parameters=(ParameterBelief(name="prefill_scale", before=WIDE, now=NARROW),),
    hypotheses=(HypothesisBelief(name="slow decode worker", before_frac=0.3, now_frac=0.1),),
    trials=(TrialBelief(trial_id="abc", number=0, measured_qps=15.7, simulated_qps=WIDE, off_sd=-1.5),),
    expected_gain_frac=0.02,
    calibration={"prefill_scale": 0.85},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_belief(tmp_path, BELIEF)
    assert read_belief(tmp_path) == BELIEF


def test_a_study_without_one_has_none(tmp_path: Path) -> None:
    assert read_belief(tmp_path) is None


def test_a_torn_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "belief.json").write_text('{"schema": 1, "trials_t')
    with pytest.raises(RunAgain, match=r"belief\.json"):
        read_belief(tmp_path)


def test_ends_in_disorder_are_refused() -> None:
    with pytest.raises(ValidationError, match="out of order"):
        Interval(low=2.0, median=1.0, high=3.0)


def test_a_proposal_keeps_what_it_expected(tmp_path: Path) -> None:
    proposal = Proposal(number=1, params={}, source="calibrated", trial_id="abc", expected_qps=NARROW)
    append_proposal(tmp_path / "proposals.jsonl", proposal)
    assert read_proposals(tmp_path / "proposals.jsonl") == (proposal,)
