"""What measuring the best again came to: on the page, in the answer, on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.report_page import Page
from support.synthetic_search import searched
from support.synthetic_study import measured, study

from tune.analysis.guaranteed_rates import RemeasuredConfiguration, guarantee_rates
from tune.analysis.ranking import rank
from tune.records.confirmation import Confirmation, ConfirmedConfiguration
from tune.records.outcome import Outcome
from tune.report import formatting
from tune.report.page import write_report
from tune.report.sections.answer import answer
from tune.report.sections.confirmed import confirmation_section, render_confirmation
from tune.spec.load import Load

BOUNDARIES = ((16.1, 16.5, 16.3), (16.2, 16.0, 16.4), (13.0, 13.3, 13.2))
OUTCOMES = [measured(i, prefill=14 - i, tps_gpu=140.0 - i) for i in range(4)]


def confirmation(load: Load, boundaries: tuple[tuple[float, ...], ...] = BOUNDARIES) -> Confirmation:
    """Of the first trials, one for each of `boundaries`."""
    candidates = [
        RemeasuredConfiguration(
            OUTCOMES[number],
            tuple(
                (load, searched(10 + 5 * number + k, bracket=(16.05, 16.4, qps)))
                for k, qps in enumerate(deployments)
            ),
        )
        for number, deployments in enumerate(boundaries)
    ]
    return guarantee_rates("pd_split-sim", candidates, 0.95, study_gpu_hours=1234.0, gpu_hours=345.6)


@pytest.fixture
def load(shipped: Any) -> Load:
    found: Load = shipped.load
    return found


def answered(outcomes: list[Outcome], found: Confirmation | None, **changes: Any) -> Any:
    return answer(study(**changes), outcomes, [row["trial_id"] for row in rank(outcomes)], found)


def test_the_answer_says_what_is_confirmed_and_no_more_that_the_winner_was_lucky(load: Load) -> None:
    found = answered(OUTCOMES, confirmation(load))
    assert found.sentence.startswith("14P4D, prefill max_num_tokens 2048, decode CUDA graphs listed at ")
    stated = confirmation(load).configurations[0].guaranteed_qps
    assert f"Confirmed on new deployments, at 95 % confidence: it holds {stated:.4g} QPS, " in found.sentence
    assert not any("luckiest" in note for note in found.notes)
    other = [OUTCOMES[0].model_copy(update={"output_tps_per_gpu": 100.0}), *OUTCOMES[1:]]
    assert "confidence: 14P4D, prefill max_num_tokens 2048" in answered(other, confirmation(load)).sentence


def test_without_one_the_command_that_confirms_is_recommended_with_its_place() -> None:
    command = ("+sweep=pd_split", "cluster=slurm", "cluster.partition=batch", "study.seed=7", "runs_dir=r")
    notes = answered(OUTCOMES, None, backend="slurm", command=command).notes
    assert any(
        "measure the best again on new deployments, python -m tune action=confirm study.name=pd_split-sim "
        "cluster=slurm cluster.partition=batch runs_dir=r." in note
        for note in notes
    )


def test_repeats_are_not_recommended_to_be_repeated() -> None:
    notes = answered(OUTCOMES, None, name="pd_split-sim.confirm").notes
    assert "These are repeats: the report of pd_split-sim says what they came to." in notes
    assert not any("action=confirm" in note for note in notes)


def test_the_page_shows_every_configuration_with_its_interval_its_rate_and_ties(
    load: Load, tmp_path: Path
) -> None:
    found = confirmation(load)
    text = write_report(tmp_path, study(), OUTCOMES, confirmation=found).read_text(encoding="utf-8")
    page = Page(text)
    assert '<a href="#confirmed">Confirmed</a>' in text
    assert text.count('<section id="confirmed">') == 1
    first, tied, lower = confirmation_section(study(), OUTCOMES, found, OUTCOMES[0].trial_id).rows
    assert [first.beside, tied.beside, lower.beside] == ["the best", "tied", "lower"]
    for row in (first, tied, lower):
        for shown in (row.name, row.mean, row.interval, row.stated, row.throughput, row.held):
            assert shown in page.text
    assert "1,230 GPU-hours were spent by the study, 346 by the confirmation." in page.text
    assert f"load.target_qps={found.configurations[0].guaranteed_qps!r} load.mode=fixed" in page.text
    unconfirmed = write_report(tmp_path, study(), OUTCOMES).read_text(encoding="utf-8")
    assert 'id="confirmed"' not in unconfirmed


def test_a_best_trial_that_came_later_is_named(load: Load) -> None:
    notes = confirmation_section(study(), OUTCOMES, confirmation(load), OUTCOMES[3].trial_id).notes
    assert any("trial 3, is not among them" in note and "action=confirm" in note for note in notes)


def test_a_trial_that_the_study_has_lost_goes_by_its_number(load: Load) -> None:
    assert "Confirmed: trial 0 holds" in render_confirmation(study(), [], confirmation(load))


def test_one_repeat_says_that_no_interval_can_be_given(load: Load) -> None:
    found = confirmation(load, ((16.1,), (15.0,)))
    text = render_confirmation(study(), OUTCOMES, found)
    assert "mean boundary 16.1 QPS on 1 new deployment, but no rate is stated: one repeat gives" in text
    assert "run it" not in text
    shown = confirmation_section(study(), OUTCOMES, found, OUTCOMES[0].trial_id)
    assert shown.command is None
    assert (shown.rows[0].interval, shown.rows[0].stated) == ("–", "–")


def test_where_none_holds_again_it_says_so(load: Load) -> None:
    found = confirmation(load, ((16.1, 0.0), (0.0, 0.0)))
    text = render_confirmation(study(), OUTCOMES, found)
    assert text.startswith(
        "stated    Measured again, no configuration holds its SLO: on a deployment no rate"
    )


def test_a_terminal_is_told_the_rate_its_rest_and_its_cost(load: Load) -> None:
    found = confirmation(load)
    first = found.configurations[0]
    lines = render_confirmation(study(), OUTCOMES, found).splitlines()
    assert lines[0].startswith("stated    Confirmed: 14P4D")
    assert sum(line.startswith("beside    ") for line in lines) == 2
    assert lines[-1] == f"run it    {formatting.command(first.overrides)}"
    assert any("Cannot be told apart from it at 95 % confidence: 13P5D" in line for line in lines)
    assert any(_held(first) in line for line in lines)
    assert any("the highest that held: 16.05 QPS." in line for line in lines)


def _held(first: ConfirmedConfiguration) -> str:
    return f"A run of full length held at the stated rate or above in {first.slo_held_repeats} of 3 repeats"
