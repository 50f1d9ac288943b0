"""Label a configuration by its split and the parallelism of its workers."""

from __future__ import annotations

import pytest
from support.composed import composed
from support.synthetic_study import outcome, study

from tune.records.proposals import Proposal
from tune.report.kind_label import kind_label
from tune.report.terminal import render_outcome
from tune.spec.kind import kind_of
from tune.study.trial_requests import trial_request


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ([], "14P4D TP4/TP4"),
        (["prefill.pipeline_parallel_size=2"], "14P4D TP4xPP2/TP4"),
        (["+decode.context_parallel_size=2"], "14P4D TP4/TP4xCP2"),
    ],
)
def test_the_label_names_every_kind_of_parallelism(overrides: list[str], label: str) -> None:
    pool = {"tensor_parallel_size": 4, "pipeline_parallel_size": 1}
    recorded = study(space={}, base={"prefill": pool, "decode": pool})
    provenance = {"split": "14P4D", "overrides": overrides}
    trial = outcome(0, "failed", "a node").model_copy(update={"provenance": provenance})
    assert kind_label(trial, recorded) == label


@pytest.mark.parametrize(
    ("recorded", "label"),
    [
        ({"parallelism": "TP4/TP8"}, "14P4D TP4/TP8"),
        ({"overrides": ["decode.tensor_parallel_size=8"]}, "14P4D"),
    ],
)
def test_a_single_trial_has_its_own_parallelism_and_never_half_of_one(
    recorded: dict[str, object], label: str
) -> None:
    """A study of single trials holds no settings of its pools."""
    trial = outcome(0, "failed", "a node").model_copy(update={"provenance": {"split": "14P4D"} | recorded})
    single = study(space={}, base={})
    assert kind_label(trial, single) == label
    assert render_outcome(trial, single.slo, single).startswith(f"{label}  ")


def test_a_trial_records_its_parallelism() -> None:
    spec = composed("prefill.pipeline_parallel_size=2", "split.prefill_workers=7").trial_spec
    proposal = Proposal(number=0, trial_id=spec.trial_id, params={}, source="baseline")
    assert trial_request(proposal, spec, lambda _: [], study()).provenance["parallelism"] == "TP4xPP2/TP4"


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ([], "14P4D TP4/TP4"),
        (["prefill.pipeline_parallel_size=2", "split.prefill_workers=7"], "7P4D TP4xPP2/TP4"),
    ],
)
def test_a_trial_has_the_label_of_its_record(overrides: list[str], label: str) -> None:
    assert kind_of(composed(*overrides).trial_spec) == label
