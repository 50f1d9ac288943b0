from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import pytest
from support.probes import spread
from support.synthetic_study import measured, study, unmeasured

from tune.analysis.ranking import rank
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.sections.answer import Answer, answer
from tune.report.trial_status import distinct_trials
from tune.report.verdict_robustness import is_uncertain
from tune.spec.load import Slo

LIFTED = Slo(ttft_p99_s=None, tpot_p99_s=None)


def answered(outcomes: Sequence[Outcome], record: StudyRecord | None = None, **changes: Any) -> Answer:
    return answer(record or study(**changes), outcomes, [row["trial_id"] for row in rank(outcomes)])


def test_the_answer_names_configuration_rate_throughput_and_both_percentiles_with_their_limits() -> None:
    best = measured(
        3, prefill=13, qps=15.9, tps_gpu=139.23, ttft_p99_s=4.3142, tpot_p99_s=0.0593, spread=None
    )
    found = answered([measured(0, ttft_p99_s=5.0), best])
    assert found.found
    assert found.sentence == (
        "13P5D, prefill max_num_tokens 2048, decode CUDA graphs listed at 15.9 QPS: "
        "139.2 output tokens/s/GPU, p99 TTFT 4.31 s of 4.5 s, p99 TPOT 59.3 ms of 80 ms."
    )
    assert found.command is not None
    assert shlex.split(found.command)[3:] == best.provenance["overrides"]


def test_the_answer_is_compared_with_the_incumbent_and_says_what_changed() -> None:
    found = answered([measured(0, tps_gpu=137.5), measured(3, prefill=13, tps_gpu=140.25)])
    notes = " ".join(found.notes)
    assert "2.0 % more output tokens/s/GPU than the baseline, 14P4D" in notes
    assert "Changed from the baseline: prefill_workers 14 → 13." in notes
    assert found.tiles[0].note == "+2.0 % against the baseline"


def test_a_best_slower_than_an_incumbent_that_broke_the_slo_says_fewer() -> None:
    found = answered([measured(0, tps_gpu=150.0, ttft_p99_s=9.0), measured(1, tps_gpu=135.0)])
    assert any(note.startswith("10.0 % fewer") and "which broke the SLO" in note for note in found.notes)


def test_the_incumbent_may_remain_the_best() -> None:
    found = answered([measured(0, tps_gpu=150.0), measured(1, tps_gpu=135.0)])
    assert "This is the baseline: no other trial beat it." in found.notes


def test_an_incumbent_that_was_not_measured_is_named_with_its_reason() -> None:
    found = answered([unmeasured(0, "failed", "gb03 lost its link"), measured(1)])
    assert "The baseline (trial 0) was not measured: gb03 lost its link." in found.notes


def test_trial_zero_of_a_study_without_an_incumbent_is_no_incumbent() -> None:
    found = answered([measured(0, tps_gpu=130.0), measured(1)], baseline=False)
    assert not any("baseline" in note for note in found.notes)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "begins"),
    [
        (4.41, 0.04, "Binding constraint: p99 TTFT, at 98 % of its limit, p99 TPOT uses 50 %."),
        (1.8, 0.0792, "Binding constraint: p99 TPOT, at 99 % of its limit, p99 TTFT uses 40 %."),
        (1.8, 0.04, "No limit is near: p99 TPOT, the closest, uses 50 % of its limit"),
    ],
)
def test_the_binding_constraint_is_named(ttft_s: float, tpot_s: float, begins: str) -> None:
    trial = measured(0, ttft_p99_s=ttft_s, tpot_p99_s=tpot_s, spread=None)
    assert answered([trial]).notes[0].startswith(begins)


def test_what_binds_and_what_to_try_stand_behind_the_limit() -> None:
    notes = answered([measured(0)]).notes
    assert (
        "What binds it: prefill. 76 % of the slowest 2 % of first tokens is waiting for a prefill worker or "
        "sharing it with other prompts; prefill workers are busy 86 % of the time." in notes
    )
    assert (
        "To try: one more prefill worker, 15P3D (split.prefill_workers=15 split.decode_workers=3); "
        "more GPUs a prefill worker (prefill.tensor_parallel_size)." in notes
    )


def test_a_record_without_what_binds_names_the_limit_alone() -> None:
    notes = answered([measured(0, bottleneck=None, spread=None)]).notes
    assert not any(note.startswith(("What binds", "To try", "Over ")) for note in notes)


def test_an_answer_in_doubt_says_so_in_its_sentence_and_names_the_surest() -> None:
    doubtful = measured(3, tps_gpu=140.0, ttft_p99_s=4.2, spread=spread(3, 4.4))
    sure = measured(4, prefill=13, tps_gpu=133.0, ttft_p99_s=3.9, spread=spread(5, 3.9))
    slow = measured(5, tps_gpu=100.0, ttft_p99_s=2.0)
    found = answered([doubtful, sure, slow])
    assert found.sentence.endswith(
        "It is within its spread of breaking the SLO: the SLO holds in 3 of 5 orders of prompt lengths."
    )
    assert found.notes[0] == (
        "Over 5 orders of prompt lengths the SLO holds in 3; p99 TTFT 4.40 s ± 0.300 s (sd), 4.10 s to "
        "5.00 s; p99 TPOT 59.0 ms ± 1.00 ms (sd), 59.0 ms to 61.0 ms."
    )
    assert found.notes[1].startswith("The fastest that no order of lengths puts in doubt: 13P5D")
    assert found.notes[1].endswith("(trial 4), 133.0 tokens/s/GPU, -5.0 %.")
    assert found.tiles[1].note == "limit 4.5 s, sd 0.300 s over orders"


@pytest.mark.parametrize(
    ("held", "mean_s", "sd_s", "doubt"),
    [(5, 4.0, 0.3, False), (5, 4.3, 0.3, True), (4, 4.0, 0.3, True)],
    ids=["clear", "one sd away", "one order breaks it"],
)
def test_an_answer_is_in_doubt_where_an_order_breaks_it_or_one_sd_would(
    held: int, mean_s: float, sd_s: float, doubt: bool
) -> None:
    trial = measured(0, ttft_p99_s=4.0, spread=spread(held, mean_s, sd_s))
    assert is_uncertain(trial, study().slo) == doubt
    assert ("within its spread" in answered([trial]).sentence) == doubt


def test_a_broken_slo_is_in_doubt_where_an_order_holds_it() -> None:
    assert is_uncertain(measured(0, ttft_p99_s=4.6, spread=spread(2, 4.6)), study().slo)
    assert not is_uncertain(measured(0, ttft_p99_s=4.6, spread=spread(0, 4.6)), study().slo)
    assert not is_uncertain(measured(0, ttft_p99_s=46.0), study().slo)


def test_lifted_limits_bind_nothing_and_are_not_quoted() -> None:
    found = answered([measured(0, slo=LIFTED, ttft_p99_s=50.0)], slo=LIFTED)
    assert found.sentence.endswith("p99 TTFT 50.0 s, p99 TPOT 59.0 ms.")
    assert found.notes[0].startswith("No limit was set")
    assert [tile.share for tile in found.tiles] == [None] * 4


def test_a_best_at_the_edge_of_the_space_is_pointed_out() -> None:
    notes = answered([measured(4, prefill=17)]).notes
    assert any("prefill_workers = 17 (highest)" in note for note in notes)
    assert not any("edge" in note for note in answered([measured(4, prefill=16)]).notes)


def test_fewer_trials_than_planned_are_accounted_for() -> None:
    assert any(
        "2 of 12 planned trials are listed" in note for note in answered([measured(0), measured(1)]).notes
    )


def test_none_feasible_names_the_closest_by_how_much_it_missed_and_what_to_try() -> None:
    found = answered([measured(i, ttft_p99_s=5.04 + i) for i in range(3)])
    assert not found.found
    assert found.sentence.startswith("No configuration held every limit. The closest, 14P4D")
    assert "missed: p99 TTFT by 12.0 % (p99 TTFT 5.04 s of 4.5 s" in found.sentence
    assert found.notes[0].startswith("Over 5 orders of prompt lengths the SLO holds in 0")
    assert found.notes[1].startswith("What binds it: prefill.")
    assert found.notes[2].startswith("To try: one more prefill worker")


def test_a_trial_that_cannot_be_trusted_is_not_the_closest() -> None:
    fast_but_wrong = measured(0, valid=False, reason="no tokens came back", ttft_p99_s=0.1)
    found = answered([fast_but_wrong, measured(1, ttft_p99_s=5.0)])
    assert "p99 TTFT by 11.1 %" in found.sentence


def test_only_untrusted_trials_are_told_with_their_reason() -> None:
    found = answered([measured(0, valid=False, reason="no tokens came back", ttft_p99_s=0.1)])
    assert "missed: no tokens came back" in found.sentence


def test_nothing_measured_counts_reasons_and_tells_failed_from_infeasible() -> None:
    found = answered(
        [
            *(unmeasured(i, "failed", "gb07 went down") for i in range(3)),
            unmeasured(3, "infeasible", "too big"),
        ]
    )
    assert found.sentence == (
        "Nothing was measured: 3 trials failed and 1 trial could not run as configured."
    )
    assert found.notes[0] == "The most frequent reason, 3 of 4: gb07 went down"
    assert found.command is None


def test_no_trial_at_all_points_to_the_command() -> None:
    assert answered([]).sentence == "No trial is recorded yet, of 12 planned."


def test_a_trial_that_was_proposed_again_counts_once_under_its_first_number() -> None:
    first, again = measured(2), measured(7, trial_id=f"{2:012x}")
    assert distinct_trials([again, first]) == [first]


def test_the_configuration_as_shipped_has_a_command_without_overrides() -> None:
    assert answered([measured(0, provenance={"overrides": []})]).command == "python -m tune"
    assert answered([measured(0, provenance={})]).command is None
