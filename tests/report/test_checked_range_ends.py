"""Test what the simulator expects beyond a range that ends at the best value, and what is said of it."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from support.composed import composed
from support.outcomes import measured
from support.request_logs import spec

from tune.analysis.range_ends import RangeEnd
from tune.records.study_record import StudyRecord
from tune.report.checked_range_ends import checked_range_ends
from tune.report.range_end_text import describe_ends, describe_final_ends, widening_command
from tune.report.simulated_gain import SimulatedTrial
from tune.spec.space import OrderedDimension
from tune.study.identity import study_record

WORDS = ("+sweep=pd_split", "study.n_trials=40")
POINT: dict[str, Any] = {
    "prefill_workers": 14,
    "prefill_max_num_tokens": 4096,
    "decode_max_batch_size": 128,
    "decode_cuda_graphs": "powers_of_two",
    "target_qps": 15.75,
}


def recorded(*words: str) -> StudyRecord:
    return study_record(composed(*WORDS, *words), "split", (*WORDS, *words))


def checked(study: StudyRecord, *, feasible: bool = True, **changes: Any) -> dict[str, RangeEnd]:
    point = POINT | changes
    best = measured(params=point, feasible=feasible, qps=point["target_qps"])
    return {end.name: end for end in checked_range_ends(study, best, [best])}


def without_calibration(study: StudyRecord) -> StudyRecord:
    cluster = study.base["cluster"] | {"calibration": None}
    return study.model_copy(update={"base": study.base | {"cluster": cluster}})


def test_without_a_calibration_nothing_is_expected_and_the_range_is_widened() -> None:
    ends = checked(without_calibration(recorded()), prefill_max_num_tokens=16384, target_qps=26.0)
    assert {name: end.expected for name, end in ends.items()} == {
        "prefill_max_num_tokens": None,
        "target_qps": None,
    }
    assert "widen to 32768)" in describe_ends(list(ends.values()))
    assert not describe_final_ends(list(ends.values()))


@pytest.mark.slow
def test_a_wider_range_that_the_simulator_refutes_is_not_advised() -> None:
    """Chunks of 32,768 tokens delay first tokens as much as they save."""
    study = recorded()
    ends = checked(study, prefill_max_num_tokens=16384)
    (end,) = ends.values()
    assert (end.name, end.wider, end.expected) == ("prefill_max_num_tokens", 32768, "")
    assert not describe_ends([end])
    assert describe_final_ends([end]) == (
        "prefill.max_num_tokens = 16384 is the highest value of its range; simulated: 32768 gains nothing"
    )
    base = spec("prefill.max_num_tokens=16384", "load.target_qps=15.75")
    calibration = composed().cluster.calibration
    assert calibration
    by_hand = SimulatedTrial(base, calibration).expected_gain(spec("prefill.max_num_tokens=32768"))
    assert by_hand is None


@pytest.mark.slow
def test_a_wider_range_that_gains_is_advised_with_what_is_expected_of_it() -> None:
    study = recorded("sweep.space.prefill_max_num_tokens.values=[512,1024]")
    (end,) = checked(study, prefill_max_num_tokens=1024).values()
    assert end.wider == 2048
    text = describe_ends([end])
    found = re.search(r"widen to 2048, simulated: holds at up to (\S+) instead of (\S+) queries/s\)$", text)
    assert found, text
    after_qps, before_qps = map(float, found.groups())
    assert before_qps < after_qps < 17
    settings = composed(*shlex.split(widening_command(study, [end]))[3:])
    assert settings.sweep
    assert settings.sweep.ends("prefill.max_num_tokens") == (512, 2048)


@pytest.mark.slow
def test_a_range_is_widened_only_as_far_as_a_gain_is_expected() -> None:
    """10P8D has decode workers to spare, 14P4D has none."""
    study = recorded("sweep.space.prefill_workers.low=2", "sweep.space.prefill_workers.high=10")
    (end,) = checked(study, prefill_workers=10, target_qps=11.0).values()
    assert end.expected
    assert end.wider in (11, 12, 13, 14)
    final = recorded("sweep.space.prefill_workers.high=14")
    (end,) = checked(final, prefill_workers=14).values()
    assert end.expected == ""


@pytest.mark.slow
@pytest.mark.parametrize(("high_qps", "holds"), [(12.0, True), (16.5, False)])
def test_a_higher_rate_is_advised_only_where_the_slo_still_holds_there(high_qps: float, holds: bool) -> None:
    study = recorded(f"sweep.space.target_qps.high={high_qps}")
    (end,) = checked(study, target_qps=high_qps).values()
    assert bool(end.expected) == holds
    if holds:
        assert end.expected
        assert re.fullmatch(r"holds at up to 1[56]\.\d+ queries/s in every shuffle", end.expected)


@pytest.mark.slow
def test_a_list_of_rates_gets_the_highest_that_is_expected_to_hold() -> None:
    rates = OrderedDimension(kind="ordered", path="load.target_qps", values=(5.0, 10.0))
    study = recorded()
    study = study.model_copy(update={"space": {**study.space, "target_qps": rates}})
    (end,) = checked(study, target_qps=10.0).values()
    (qps,) = end.added
    assert isinstance(qps, float)
    assert 15 < qps < 17, "the list would have been doubled to 20"
    assert end.expected == f"holds at up to {qps:g} queries/s in every shuffle"
    assert end.overrides == f"'sweep.space.target_qps.values=[5.0,10.0,{qps}]'"


@pytest.mark.slow
@pytest.mark.parametrize(("low_qps", "holds"), [(18.0, True), (40.0, False)])
def test_a_lower_rate_is_advised_only_where_one_is_expected_to_hold(low_qps: float, holds: bool) -> None:
    study = recorded(f"sweep.space.target_qps.low={low_qps}", f"sweep.space.target_qps.high={low_qps + 8}")
    (end,) = checked(study, target_qps=low_qps, feasible=False).values()
    assert bool(end.expected) == holds
