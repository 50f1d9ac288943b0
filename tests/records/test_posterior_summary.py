"""Test `posterior.json`, and the expected capacity of a proposal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from tune.errors import ResumableError
from tune.records.posterior_summary import (
    HypothesisPosterior,
    Interval,
    KindPosterior,
    ParameterPosterior,
    PosteriorSummary,
    TrialPosterior,
    read_posterior,
    write_posterior,
)
from tune.records.proposals import Proposal, append_proposal, read_proposals

WIDE, NARROW = Interval(low=0.5, median=1.0, high=2.0), Interval(low=0.9, median=0.95, high=1.0)
POSTERIOR = PosteriorSummary(
    schema=2,
    trials_observed=1,
    parameters=(ParameterPosterior(name="prefill_scale", prior=WIDE, posterior=NARROW),),
    hypotheses=(HypothesisPosterior(name="slow decode worker", prior_frac=0.3, posterior_frac=0.1),),
    trials=(
        TrialPosterior(
            trial_id="abc", number=0, measured_qps=15.7, simulated_qps=WIDE, standardised_residual=-1.5
        ),
    ),
    kinds=(
        KindPosterior(
            kind="13P5D TP4/TP4",
            trial_id="def",
            is_measured=False,
            expected_output_tps_per_gpu=WIDE,
            params={"prefill_workers": 13, "sizes": (1, 2), "scale": 0.5, "graphs": None},
        ),
    ),
    expected_improvement_frac=0.02,
    calibration={"prefill_scale": 0.85},
)


def test_record_without_kinds_is_read(tmp_path: Path) -> None:
    write_posterior(tmp_path, POSTERIOR)
    path = tmp_path / "posterior.json"
    older = json.loads(path.read_text(encoding="utf-8"))
    del older["kinds"]
    path.write_text(json.dumps(older), encoding="utf-8")
    assert read_posterior(tmp_path) == POSTERIOR.model_copy(update={"kinds": ()})


def test_written_record_reads_back(tmp_path: Path) -> None:
    write_posterior(tmp_path, POSTERIOR)
    assert read_posterior(tmp_path) == POSTERIOR


def test_study_without_posterior_reads_as_none(tmp_path: Path) -> None:
    assert read_posterior(tmp_path) is None


def test_torn_posterior_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "posterior.json").write_text('{"schema": 2, "trials_t')
    with pytest.raises(ResumableError, match=r"posterior\.json"):
        read_posterior(tmp_path)


def test_interval_out_of_order_is_refused() -> None:
    with pytest.raises(ValidationError, match="out of order"):
        Interval(low=2.0, median=1.0, high=3.0)


def test_proposal_keeps_its_expected_capacity(tmp_path: Path) -> None:
    proposal = Proposal(number=1, params={}, source="surrogate", trial_id="abc", expected_capacity_qps=NARROW)
    append_proposal(tmp_path / "proposals.jsonl", proposal)
    assert read_proposals(tmp_path / "proposals.jsonl") == (proposal,)
