"""Test the answer of a study: sentence, tiles and notes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.composed import composed
from support.synthetic_study import spread, study, synthetic_trial, unmeasured

from tune.analysis.range_ends import RangeEnd, range_ends
from tune.analysis.ranking import rank
from tune.records.outcome import CapacityQps, Outcome
from tune.records.study_record import StudyRecord
from tune.report.confirmation_text import format_confidence, format_share
from tune.report.sections.answer import Answer, answer
from tune.report.trial_status import distinct_trials
from tune.report.verdict_robustness import is_uncertain
from tune.spec.load import Slo

BASE = {"prefill": {"tensor_parallel_size": 4}, "decode": {"tensor_parallel_size": 8}}
LIFTED = Slo(ttft_p99_s=None, tpot_p99_s=None)


def answered(
    outcomes: Sequence[Outcome],
    record: StudyRecord | None = None,
    ends: Sequence[RangeEnd] = (),
    **changes: Any,
) -> Answer:
    ranked = [row["trial_id"] for row in rank(outcomes)]
    return answer(record or study(**changes), outcomes, ranked, ends=ends)


def test_headline_says_what_to_deploy_what_it_gives_and_against_what() -> None:
    best = synthetic_trial(
        3, prefill=13, qps=15.9, tps_gpu=140.25, ttft_p99_s=4.3142, tpot_p99_s=0.0593, spread=None
    )
    result = answered([synthetic_trial(0, tps_gpu=137.5), best], base=BASE)
    assert result.is_feasible
    assert result.headline == (
        "Deploy 13 prefill and 5 decode workers (13P5D TP4/TP8): 10,100 output tokens/s, 140.2 per GPU, at "
        "15.9 queries/s, 2.0 % more than the baseline."
    )
    assert result.settings == "prefill max_num_tokens 2048, decode CUDA graphs listed"
    assert result.command is not None
    assert shlex.split(result.command)[3:] == best.provenance["overrides"]


def test_every_part_of_the_answer_gives_the_same_figures() -> None:
    best = synthetic_trial(3, prefill=13, tps_gpu=138.9495)
    result = answered([synthetic_trial(0, tps_gpu=137.5), best])
    assert "138.9 per GPU" in result.headline
    assert [tile.value for tile in result.tiles[:2]] == ["10,000", "138.9"]
    assert result.picture is not None
    (row,) = (row for row in result.picture.rows if row.is_recommended)
    assert row.text == "138.9"


def test_answer_compares_best_with_baseline() -> None:
    result = answered([synthetic_trial(0, tps_gpu=137.5), synthetic_trial(3, prefill=13, tps_gpu=140.25)])
    facts = dict(result.facts)
    assert (
        facts["Baseline"]
        == "14P4D at 15.75 queries/s gives 137.5 tokens/s/GPU and holds its SLO in 4 of 5 shuffles."
    )
    assert "Changed from the baseline: prefill_workers 14 → 13." in result.notes
    assert result.tiles[1].note == "+2.0 % against the baseline"


def test_baseline_that_violates_the_slo_is_no_measure_of_the_gain() -> None:
    result = answered([synthetic_trial(0, tps_gpu=150.0, ttft_p99_s=9.0), synthetic_trial(1, tps_gpu=135.0)])
    assert result.headline.endswith("; the baseline does not hold its SLO.")
    assert result.tiles[1].note == "the baseline does not hold its SLO"
    assert dict(result.facts)["Baseline"].endswith("gives 150.0 tokens/s/GPU and does not hold its SLO.")


def test_baseline_may_remain_the_best() -> None:
    result = answered([synthetic_trial(0, tps_gpu=150.0), synthetic_trial(1, tps_gpu=135.0)])
    assert result.headline.endswith("queries/s, which is the baseline.")
    assert dict(result.facts)["Baseline"].endswith("no other trial was better.")


def test_unmeasured_baseline_is_named_with_its_reason() -> None:
    result = answered([unmeasured(0, "failed", "gb03 lost its link"), synthetic_trial(1)])
    assert dict(result.facts)["Baseline"].endswith("was not measured: gb03 lost its link.")


def test_study_without_baseline_mentions_none() -> None:
    result = answered([synthetic_trial(0, tps_gpu=130.0), synthetic_trial(1)], baseline=False)
    assert "baseline" not in " ".join([result.headline, *result.notes, *(text for _, text in result.facts)])


def test_answer_states_what_it_cost() -> None:
    result = answered([synthetic_trial(0), synthetic_trial(1, prefill=13), unmeasured(2, "failed", "gone")])
    assert dict(result.facts)["Cost"] == (
        "3 trials, 147.6 GPU-hours that the simulated trials would have cost."
    )


def test_running_study_says_that_the_answer_is_the_one_so_far() -> None:
    outcomes = [synthetic_trial(0), synthetic_trial(1, prefill=13)]
    ranked = [row["trial_id"] for row in rank(outcomes)]
    result = answer(study(), outcomes, ranked, running=True)
    assert result.headline.startswith("So far, after 2 of 12 trials: Deploy ")
    assert not answer(study(), outcomes, ranked).headline.startswith("So far")


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "start"),
    [
        (4.41, 0.04, "Tightest limit: p99 TTFT uses 98 % of its limit."),
        (1.8, 0.0792, "Tightest limit: p99 TPOT uses 99 % of its limit."),
        (1.8, 0.04, "No limit is near: p99 TPOT, the tightest, uses 50 % of its limit"),
    ],
)
def test_tightest_limit_is_named(ttft_s: float, tpot_s: float, start: str) -> None:
    trial = synthetic_trial(0, ttft_p99_s=ttft_s, tpot_p99_s=tpot_s, spread=None)
    assert answered([trial]).notes[0].startswith(start)


def test_bottleneck_and_recommendations_are_notes() -> None:
    notes = answered([synthetic_trial(0)]).notes
    assert (
        "Bottleneck: prefill; 76 % of the slowest 2 % of first tokens is waiting for a prefill worker or "
        "sharing it with other prompts; prefill workers are busy 86 % of the time." in notes
    )
    assert (
        "To try: one more prefill worker, 15P3D (split.prefill_workers=15 split.decode_workers=3); "
        "twice the GPUs a prefill worker, 7P4D (prefill.tensor_parallel_size=8 split.prefill_workers=7 "
        "split.decode_workers=4)." in notes
    )


def test_record_without_bottleneck_has_no_bottleneck_note() -> None:
    notes = answered([synthetic_trial(0, bottleneck=None, spread=None)]).notes
    assert not any(note.startswith(("Bottleneck", "To try", "Over ")) for note in notes)


def test_one_run_on_a_real_rack_leaves_other_shuffles_open() -> None:
    run = synthetic_trial(1, ttft_p99_s=4.3, spread=None)
    live = run.model_copy(update={"provenance": {**run.provenance, "backend": "slurm"}})
    assert any("how often another shuffle holds is not known" in note for note in answered([live]).notes)
    assert not any("is not known" in note for note in answered([run]).notes)


def test_uncertain_answer_names_fastest_certain_configuration() -> None:
    uncertain_trial = synthetic_trial(3, tps_gpu=140.0, ttft_p99_s=4.2, spread=spread(3, 4.4))
    certain = synthetic_trial(4, prefill=13, tps_gpu=133.0, ttft_p99_s=3.9, spread=spread(5, 3.9))
    slow = synthetic_trial(5, tps_gpu=100.0, ttft_p99_s=2.0)
    result = answered([uncertain_trial, certain, slow])
    sure = dict(result.facts)["How sure"]
    assert sure.startswith("Uncertain: the SLO holds in 3 of 5 shuffles, in another one with probability ")
    assert sure.endswith("not confirmed on new deployments.")
    over, fastest = (note for note in result.notes if note.startswith(("Over 5", "The fastest")))
    assert over == (
        "Over 5 shuffles (orders of the dataset's lengths) the SLO holds in 3, in another one with "
        "probability 58 % (26 to 87 %); p99 TTFT 4.40 s ± 0.300 s "
        "(sd), 4.10 s to 5.00 s; p99 TPOT 59.0 ms ± 1.00 ms (sd), 59.0 ms to 61.0 ms."
    )
    assert fastest.startswith("The fastest configuration with a certain verdict: 13P5D")
    assert fastest.endswith("(trial 4), 133.0 tokens/s/GPU, -5.0 % against the best.")


@pytest.mark.parametrize(
    ("held", "mean_s", "sd_s", "uncertain"),
    [(5, 4.0, 0.3, False), (5, 4.3, 0.3, True), (4, 4.0, 0.3, True)],
    ids=["clear", "one sd away", "one shuffle violates it"],
)
def test_answer_is_uncertain_if_a_shuffle_or_one_sd_violates_the_slo(
    held: int, mean_s: float, sd_s: float, uncertain: bool
) -> None:
    trial = synthetic_trial(0, ttft_p99_s=4.0, spread=spread(held, mean_s, sd_s))
    assert is_uncertain(trial, study().slo) == uncertain
    sure = dict(answered([trial]).facts)["How sure"]
    assert sure.startswith("Uncertain") == uncertain


@pytest.mark.parametrize(("share", "text"), [(0.117526, "12 %"), (0.0304, "3 %"), (0.0034, "0.34 %")])
def test_a_share_has_two_digits(share: float, text: str) -> None:
    assert format_share(share) == text


def test_a_stated_confidence_keeps_its_digits() -> None:
    assert format_confidence(0.995) == "99.5 %"


def test_violation_is_uncertain_if_a_shuffle_holds() -> None:
    assert is_uncertain(synthetic_trial(0, ttft_p99_s=4.6, spread=spread(2, 4.6)), study().slo)
    assert not is_uncertain(synthetic_trial(0, ttft_p99_s=4.6, spread=spread(0, 4.6)), study().slo)
    assert not is_uncertain(synthetic_trial(0, ttft_p99_s=46.0), study().slo)


def test_lifted_limits_are_not_shown() -> None:
    result = answered([synthetic_trial(0, slo=LIFTED, ttft_p99_s=50.0)], slo=LIFTED)
    assert [tile.note for tile in result.tiles[3:]] == ["no limit"] * 2
    assert result.notes[0].startswith("No latency limit is set")
    assert [tile.share for tile in result.tiles] == [None] * 5


def test_best_at_the_end_of_a_range_is_noted_with_the_command_that_widens_it() -> None:
    base = composed().trial_spec.model_dump(mode="json")
    best = synthetic_trial(4, qps=22.0)
    ends = range_ends(study(base=base), best, [best])
    (note,) = (note for note in answered([best], ends=ends, base=base).notes if "end of its range" in note)
    assert "load.target_qps = 22 (highest; widen to 29)" in note
    assert "sweep.space.target_qps.high=29.0" in note
    notes = answered([best], ends=[replace(end, expected="") for end in ends], base=base).notes
    assert not any("sweep.space" in note for note in notes)
    assert "load.target_qps = 22 is the highest value of its range; simulated: 29 gains nothing." in notes


def test_fewer_trials_than_planned_are_explained() -> None:
    assert any(
        "2 of 12 planned trials are listed" in note
        for note in answered([synthetic_trial(0), synthetic_trial(1)]).notes
    )


def test_without_feasible_trial_the_closest_is_named() -> None:
    result = answered([synthetic_trial(i, ttft_p99_s=5.04 + i) for i in range(3)])
    assert not result.is_feasible
    assert result.headline == (
        "No configuration held every limit. The closest, 14 prefill and 4 decode workers (14P4D) at 15.75 "
        "queries/s, missed: p99 TTFT by 12.0 %."
    )
    assert result.notes[0].startswith("Over 5 shuffles (orders of the dataset's lengths) the SLO holds in 0")
    assert result.notes[1].startswith("Bottleneck: prefill;")
    assert result.notes[2].startswith("To try: one more prefill worker")


def test_the_closest_that_holds_in_some_shuffles_is_not_said_to_miss() -> None:
    reason = "the SLO holds in 4 of 5 shuffles; expected all of them"
    result = answered([synthetic_trial(0, spread=spread(4, 4.3), feasible=False, reason=reason)])
    assert result.headline == (
        "No configuration held every limit in every shuffle. The closest, 14 prefill and 4 decode workers "
        "(14P4D) at 15.75 queries/s, holds its SLO in 4 of 5 shuffles."
    )
    assert result.tiles[1].note == "holds its SLO in 4 of 5 shuffles"
    assert not any(note.startswith("Run it longer") for note in result.notes)


def test_the_command_for_a_verified_rate_says_what_to_expect() -> None:
    rates = CapacityQps(low=15.75, high=16.1, stopped_early=False, estimate=15.9)
    found = synthetic_trial(0, spread=spread(4, 4.3), capacity_qps=rates)
    assert answered([found]).command_title == (
        "To measure it again (a full run at this rate holds in 4 of 5 shuffles)"
    )


def test_invalid_trial_is_not_the_closest() -> None:
    fast_but_wrong = synthetic_trial(0, valid=False, reason="no tokens came back", ttft_p99_s=0.1)
    result = answered([fast_but_wrong, synthetic_trial(1, ttft_p99_s=5.0)])
    assert "p99 TTFT by 11.1 %" in result.headline


def test_only_invalid_trials_are_shown_with_their_reason() -> None:
    result = answered([synthetic_trial(0, valid=False, reason="no tokens came back", ttft_p99_s=0.1)])
    assert "has no verdict: no tokens came back" in result.headline


def test_nothing_measured_counts_reasons_and_statuses() -> None:
    result = answered(
        [
            *(unmeasured(i, "failed", "gb07 went down") for i in range(3)),
            unmeasured(3, "infeasible", "too big"),
        ]
    )
    assert result.headline == (
        "Nothing was measured: 3 trials failed and 1 trial could not run as configured."
    )
    assert result.notes[0] == "The most frequent reason, 3 of 4: gb07 went down"
    assert result.command is None


def test_study_without_trials_says_how_many_are_planned() -> None:
    assert answered([]).headline == "No trial is recorded yet; 12 are planned."


def test_repeated_proposal_counts_once_under_its_first_number() -> None:
    first, again = synthetic_trial(2), synthetic_trial(7, trial_id=f"{2:012x}")
    assert distinct_trials([again, first]) == [first]


def test_command_of_the_shipped_configuration_has_no_overrides() -> None:
    assert answered([synthetic_trial(0, provenance={"overrides": []})]).command == "python -m tune"
    assert answered([synthetic_trial(0, provenance={})]).command is None
