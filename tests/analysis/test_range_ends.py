"""Test which ranges end at the best value, how far they are widened, and which cannot be."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.composed import composed
from support.outcomes import measured

from tune.analysis.range_ends import range_ends
from tune.engines.check import check
from tune.records.study_end import StudyEnd
from tune.records.study_record import StudyRecord
from tune.report.range_end_text import describe_ends, widening_command
from tune.spec.bind import bind_point
from tune.spec.findings import only_errors
from tune.study.identity import study_record

WORDS = ("+sweep=pd_split", "study.n_trials=40")
STUDY = study_record(composed(*WORDS), "split", WORDS)
POINT: dict[str, Any] = {
    "prefill_workers": 14,
    "prefill_max_num_tokens": 4096,
    "decode_max_batch_size": 128,
    "decode_cuda_graphs": "powers_of_two",
    "target_qps": 15.75,
}


def widened(
    study: StudyRecord = STUDY, *, feasible: bool = True, **changes: Any
) -> dict[str, tuple[Any, str]]:
    best = measured(params=POINT | changes, feasible=feasible)
    return {end.name: (end.wider, end.overrides) for end in range_ends(study, best, [best])}


def test_inside_of_all_ranges_nothing_is_named() -> None:
    assert widened() == {}


def test_the_ends_of_a_rate_a_list_and_a_range_are_named() -> None:
    assert widened(target_qps=26.0) == {"target_qps": (35.6, "sweep.space.target_qps.high=35.6")}
    assert widened(prefill_max_num_tokens=16384) == {
        "prefill_max_num_tokens": (
            32768,
            "'sweep.space.prefill_max_num_tokens.values=[1024,2048,4096,8192,16384,32768]'",
        )
    }
    assert widened(prefill_max_num_tokens=1024)["prefill_max_num_tokens"][0] == 512


def test_values_of_a_pool_that_the_best_one_lacks_are_not_widened() -> None:
    words = ("+sweep=disaggregation", "search=tpe")
    study = study_record(composed(*words), "both", words)
    point = {
        "aggregated_workers": 0,
        "aggregated_max_num_tokens": 512,
        "prefill_workers": 12,
        "prefill_max_num_tokens": 2048,
        "target_qps": 12.0,
    }

    def named(**changes: Any) -> set[str]:
        best = measured(params=point | changes)
        return {end.name for end in range_ends(study, best, [best])}

    assert named() == {"prefill_max_num_tokens"}
    assert named(aggregated_workers=1) == {"aggregated_max_num_tokens"}


@pytest.mark.parametrize(("prompt_tokens", "named"), [(8192, False), (20000, True)])
def test_chunks_are_widened_only_while_the_longest_prompt_exceeds_them(
    prompt_tokens: int, named: bool
) -> None:
    words = (*WORDS, "load=fixed", f"load.dataset.inputs.tokens={prompt_tokens}")
    fixed = study_record(composed(*words), "split", words)
    assert ("prefill_max_num_tokens" in widened(fixed, prefill_max_num_tokens=16384)) == named
    assert "prefill_max_num_tokens" in widened(fixed, prefill_max_num_tokens=1024)


def test_what_cannot_be_or_changes_nothing_is_not_proposed() -> None:
    assert widened(prefill_workers=17) == {}, "no GPU is left for decode"
    assert widened(prefill_workers=1) == {}, "a request needs a prefill worker"
    assert widened(decode_max_batch_size=512) == {}, "the KV cache holds fewer sequences"


@pytest.mark.parametrize(
    ("qps", "feasible", "named"), [(6.0, True, False), (6.0, False, True), (26.0, False, False)]
)
def test_a_rate_is_widened_to_where_the_limit_may_lie(qps: float, feasible: bool, named: bool) -> None:
    assert ("target_qps" in widened(target_qps=qps, feasible=feasible)) == named


@pytest.mark.parametrize(("tps", "named"), [(9000.0, False), (8900.0, True)])
def test_a_dimension_of_which_another_value_gives_as_much_is_left_out(tps: float, named: bool) -> None:
    best = measured(params=POINT | {"prefill_max_num_tokens": 16384}, tps=9000.0)
    other = measured(1, params=POINT | {"prefill_max_num_tokens": 8192}, tps=tps)
    assert bool(range_ends(STUDY, best, [best, other])) == named


def test_a_study_without_its_configuration_on_record_names_nothing() -> None:
    assert widened(STUDY.model_copy(update={"base": {}}), target_qps=26.0) == {}


def test_the_command_composes_and_widens_the_same_study() -> None:
    best = measured(params=POINT | {"target_qps": 26.0, "prefill_max_num_tokens": 16384})
    ends = range_ends(STUDY, best, [best])
    assert describe_ends(ends) == (
        "The best value is the end of its range, so a wider one may give more: prefill.max_num_tokens = "
        "16384 (highest; widen to 32768), load.target_qps = 26 (highest; widen to 35.6)"
    )
    program, module, name, *words = shlex.split(widening_command(STUDY, ends))
    assert (program, module, name) == ("python", "-m", "tune")
    settings = composed(*words)
    assert settings.sweep is not None
    assert (settings.study.name, settings.study.n_trials) == ("split", 60)
    assert settings.sweep.ends("load.target_qps") == (6.0, 35.6)
    assert settings.sweep.ends("prefill.max_num_tokens") == (1024, 32768)


def test_trials_are_added_only_where_all_planned_ones_are_on_record() -> None:
    ends = range_ends(STUDY, measured(params=POINT | {"target_qps": 26.0}), [])
    ended = StudyEnd(kind="points", proposed=12, configurations=12, infeasible=0)
    command = widening_command(STUDY.model_copy(update={"ended": ended}), ends)
    assert "study.n_trials=40" in command


@given(
    st.fixed_dictionaries(
        {
            "prefill_workers": st.sampled_from([1, 14, 17]),
            "prefill_max_num_tokens": st.sampled_from([1024, 16384]),
            "decode_max_batch_size": st.sampled_from([64, 512]),
            "target_qps": st.sampled_from([6.0, 26.0]),
        }
    )
)
@hypothesis_settings(max_examples=12, deadline=None)
def test_every_proposal_breaks_no_rule(point: dict[str, Any]) -> None:
    base, sweep = STUDY.base_spec, STUDY.sweep
    assert base is not None
    assert sweep is not None
    for name, (wider, _) in widened(**point).items():
        spec = bind_point(base, sweep, POINT | point | {name: wider})
        assert only_errors(check(spec)) == ()
