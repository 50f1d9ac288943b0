"""Test how splits that no trial measured are shown: in a sentence, in the picture, on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.synthetic_posterior import interval, posterior_of
from support.synthetic_study import study, synthetic_trial

from tune.analysis.ranking import rank
from tune.records.outcome import CapacityQps, Outcome
from tune.records.posterior_summary import KindPosterior
from tune.records.proposals import Proposal
from tune.records.study_record import StudyRecord
from tune.report.other_kind_text import other_kind_lines
from tune.report.page import write_report
from tune.report.sections.answer import Answer, answer
from tune.report.sections.best_by_kind import MAX_KINDS, KindPicture
from tune.report.terminal import render_status

POOL = {"tensor_parallel_size": 4}
STUDY = study(base={"prefill": POOL, "decode": POOL})


def expected(
    split: str, low: float, median: float, high: float, *, is_measured: bool = False
) -> KindPosterior:
    return KindPosterior(
        kind=f"{split} TP4/TP4",
        trial_id=split,
        is_measured=is_measured,
        expected_output_tps_per_gpu=interval(low, median, high),
    )


KINDS = (
    expected("14P4D", 137.0, 140.0, 143.0, is_measured=True),
    expected("13P5D", 126.0, 133.0, 140.0),
    expected("15P3D", 98.0, 105.0, 112.0),
)
"""The trials of 14P4D held up to 2 % below what is expected of their capacity."""

HELD = [synthetic_trial(0, tps_gpu=130.0), synthetic_trial(1, tps_gpu=137.2)]


def answered(
    outcomes: list[Outcome], kinds: tuple[KindPosterior, ...], record: StudyRecord = STUDY
) -> Answer:
    return answer(record, outcomes, [row["trial_id"] for row in rank(outcomes)], None, kinds)


def drawn(outcomes: list[Outcome], kinds: tuple[KindPosterior, ...]) -> KindPicture:
    picture = answered(outcomes, kinds).picture
    assert picture
    return picture


def next_best(outcomes: list[Outcome], kinds: tuple[KindPosterior, ...] = KINDS) -> str | None:
    return dict(answered(outcomes, kinds).facts).get("Next best")


PREDICTED = (
    "13P5D TP4/TP4 is expected to give 130.3 tokens/s/GPU (90 % interval: 123.5 to 137.2), 5.0 % less; it "
    "was not measured."
)
"""133 of 140 is 5 % less; the figures are those of the prediction times 137.2 of 140."""


def test_the_answer_names_the_best_kind_that_no_trial_measured() -> None:
    assert next_best(HELD) == PREDICTED


def test_a_kind_that_is_expected_to_be_better_is_said_to_give_more() -> None:
    better = expected("13P5D", 140.0, 147.0, 154.0)
    sentence = next_best(HELD, (better, KINDS[0]))
    assert sentence
    assert sentence.endswith("5.0 % more; it was not measured.")


def test_a_measured_kind_gives_what_it_held() -> None:
    outcomes = [*HELD, synthetic_trial(2, prefill=13, tps_gpu=128.968)]
    sentence = "13P5D TP4/TP4 gives 129.0 tokens/s/GPU, 6.0 % less."
    assert next_best(outcomes) == next_best(outcomes, ()) == sentence


def test_a_kind_whose_trials_all_missed_is_predicted() -> None:
    outcomes = [*HELD, synthetic_trial(2, prefill=13, tps_gpu=150.0, ttft_p99_s=9.0)]
    sentence = next_best(outcomes)
    assert sentence
    assert sentence.endswith("5.0 % less; none of its trials held the SLO.")
    row = next(row for row in drawn(outcomes, KINDS).rows if row.label.startswith("13P5D"))
    assert (row.mark, row.text, row.held) == ("predicted, none held", "130.3", None)


def test_one_kind_without_predictions_has_no_next_best() -> None:
    assert next_best(HELD, ()) is None
    assert other_kind_lines(STUDY, HELD, None, posterior_of(), ()) == []


def test_nothing_is_compared_where_nothing_held() -> None:
    missed = [synthetic_trial(0, tps_gpu=150.0, ttft_p99_s=9.0)]
    assert answered(missed, KINDS).picture is None
    assert other_kind_lines(STUDY, missed, None, posterior_of(kinds=KINDS), ()) == []


def test_the_picture_marks_what_is_predicted() -> None:
    picture = drawn(HELD, KINDS)
    assert [(row.label, row.mark, row.text) for row in picture.rows] == [
        ("14P4D TP4/TP4", "recommended, baseline", "137.2"),
        ("13P5D TP4/TP4", "predicted", "130.3"),
        ("15P3D TP4/TP4", "predicted", "102.9"),
    ]
    measured_row, predicted_row, _ = picture.rows
    assert measured_row.held
    assert measured_row.expected is predicted_row.held is None
    assert predicted_row.expected == pytest.approx(0.95 * measured_row.held)
    assert predicted_row.interval == pytest.approx((0.9 * measured_row.held, measured_row.held))
    assert "Dashed outline: predicted by the search" in picture.caption
    assert picture.others == 0


def test_the_picture_shows_the_nearest_of_many_kinds() -> None:
    many = tuple(expected(f"{n}P{18 - n}D", 8.0 * n - 1, 8.0 * n, 8.0 * n + 1) for n in range(13, 4, -1))
    picture = drawn(HELD, (KINDS[0], *many))
    assert [row.label.split()[0] for row in picture.rows] == [
        "14P4D", "13P5D", "12P6D", "11P7D", "10P8D", "9P9D", "8P10D",
    ]  # fmt: skip
    assert len(picture.rows) == MAX_KINDS


def test_a_baseline_that_is_far_behind_takes_the_last_row() -> None:
    outcomes = [synthetic_trial(0, prefill=4, tps_gpu=30.0), synthetic_trial(1, tps_gpu=137.2)]
    many = tuple(expected(f"{n}P{18 - n}D", 8.0 * n - 1, 8.0 * n, 8.0 * n + 1) for n in range(13, 4, -1))
    picture = drawn(outcomes, (KINDS[0], *many))
    assert [row.label.split()[0] for row in picture.rows][-2:] == ["9P9D", "4P14D"]
    assert len(picture.rows) == MAX_KINDS


def test_page_and_terminal_say_the_same_and_how_far_off_predictions_were(tmp_path: Path) -> None:
    """The capacities are 15 queries/s: one prediction was 3 % too high, one 2 % too low."""
    capacity = CapacityQps(low=14.9, high=15.1, estimate=15.0, stopped_early=False)
    outcomes = [trial.model_copy(update={"capacity_qps": capacity}) for trial in HELD]
    proposals = [
        Proposal(
            number=trial.number,
            params={},
            source="surrogate",
            trial_id=trial.trial_id,
            expected_capacity_qps=interval(13.0, 15.0 * factor, 17.0),
        )
        for trial, factor in zip(outcomes, (1 / 0.97, 1 / 1.02), strict=True)
    ]
    errors = "So far predictions were 2.5 % off in the median of 2 trials, too high in 1."
    written = write_report(
        tmp_path, STUDY, outcomes, posterior=posterior_of(kinds=KINDS), proposals=proposals
    )
    page = written.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert page.count(f"<dd>{PREDICTED}</dd>") == page.count(f"<li>{errors}</li>") == 1
    assert page.count('class="expected"') == 2
    assert f"next best {PREDICTED} {errors}\n" in render_status(
        STUDY, proposals, outcomes, posterior_of(kinds=KINDS)
    )
