"""Test a confirmation on the page, in the answer and on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from support.report_page import Page
from support.synthetic_search import searched_trial
from support.synthetic_study import study, synthetic_trial

from tune.analysis.guaranteed_rates import RemeasuredConfiguration, guarantee_rates
from tune.analysis.ranking import rank
from tune.analysis.repeated_capacities import ShuffleNoise
from tune.records.accuracy import Accuracy
from tune.records.confirmation import Confirmation, ConfirmedConfiguration
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval
from tune.report import formatting
from tune.report.page import write_report
from tune.report.sections.answer import answer
from tune.report.sections.confirmed import confirmation_section
from tune.report.terminal import render_confirmation
from tune.spec.load import Load
from tune.study.accuracy_gate import with_accuracy

CAPACITIES_QPS = ((16.1, 16.5, 16.3), (16.2, 16.0, 16.4), (13.0, 13.3, 13.2))
SHUFFLES = ShuffleNoise(0.012, 15)
OUTCOMES = [synthetic_trial(i, prefill=14 - i, tps_gpu=140.0 - i) for i in range(4)]


def confirmation(
    load: Load,
    capacities_qps: tuple[tuple[float, ...], ...] = CAPACITIES_QPS,
    *,
    expected: Mapping[int, Interval] = MappingProxyType({}),
) -> Confirmation:
    """Return a confirmation of the first trials, with the capacity of each repeat.

    Those that are `expected` were not measured by the study.
    """
    candidates = [
        RemeasuredConfiguration(
            OUTCOMES[number],
            tuple(
                (load, searched_trial(10 + 5 * number + k, rates=(16.05, 16.4, qps)))
                for k, qps in enumerate(deployments)
            ),
            SHUFFLES,
            expected.get(number),
        )
        for number, deployments in enumerate(capacities_qps)
    ]
    return guarantee_rates("pd_split-sim", candidates, 0.95, study_gpu_hours=1234.0, gpu_hours=345.6)


@pytest.fixture
def load(shipped: Any) -> Load:
    settings: Load = shipped.load
    return settings


def answered(outcomes: list[Outcome], record: Confirmation | None, **changes: Any) -> Any:
    return answer(study(**changes), outcomes, [row["trial_id"] for row in rank(outcomes)], record)


def test_confirmed_answer_is_one_answer(load: Load) -> None:
    """Headline, tiles, picture and command give the guaranteed rate; nothing gives the unconfirmed one."""
    record = confirmation(load)
    result = answered(OUTCOMES, record)
    first = record.configurations[0]
    assert first.guaranteed_qps
    assert first.output_tps_per_gpu
    per_gpu = f"{first.output_tps_per_gpu:.1f}"
    assert f"{per_gpu} per GPU, at {first.guaranteed_qps:.4g} queries/s" in result.headline
    assert [tile.value for tile in result.tiles[1:]] == [per_gpu, f"{first.guaranteed_qps:.4g}"]
    assert result.command == formatting.command(first.overrides)
    assert {row.text for row in result.picture.rows if row.is_recommended} == {per_gpu}
    assert not any("luckiest" in note for note in result.notes)
    assert "140.0" not in " ".join([result.headline, *(text for _, text in result.facts), *result.notes])


@pytest.mark.parametrize(
    ("rouge_l", "missed"), [(21.4576, ()), (20.0, ("ROUGE-L 20.0000, expected at least 21.4499",))]
)
def test_accuracy_of_the_winner_confirms_or_withholds_it(
    load: Load, rouge_l: float, missed: tuple[str, ...]
) -> None:
    """Terminal, headline and table agree: a winner that misses its accuracy has no rate and no command."""
    before = confirmation(load)
    accuracy = Accuracy(
        target_qps=15.4, samples=8313, failed=0, rouge_l=rouge_l, exact_match=90.087, tokens_per_sample=629.9,
        reported_tokens_per_sample=630.9, tokens=5236624, characters=21943035, missed=missed,
    )  # fmt: skip
    trial = searched_trial(40, rates=(15.4, 15.4, 15.4)).model_copy(update={"accuracy": accuracy})
    record = Confirmation.model_validate_json(with_accuracy(before, trial).model_dump_json(by_alias=True))
    result, text = answered(OUTCOMES, record), render_confirmation(study(), OUTCOMES, record)
    section = confirmation_section(study(), OUTCOMES, record, OUTCOMES[0].trial_id)
    assert any("ROUGE-L" in note and "over 8,313 samples at 15.4 queries/s" in note for note in section.notes)
    if missed:
        objection = f"its answers miss the benchmark's accuracy: {missed[0]}"
        assert not result.is_feasible
        assert result.headline == f"The winner is not confirmed: {objection}."
        assert f"no rate is guaranteed: {objection}." in text
        assert "run it" not in text
        assert (section.rows[0].guaranteed, section.rows[0].throughput) == ("–", "–")
        assert section.rows[1].guaranteed != "–", "the others keep their rates"
    else:
        plain = answered(OUTCOMES, before)
        assert (result.headline, result.command) == (plain.headline, plain.command)
        assert "meets the benchmark's targets" in text


def test_confirmed_configuration_is_recommended_even_if_another_trial_ranks_first(load: Load) -> None:
    other = [OUTCOMES[0].model_copy(update={"output_tps_per_gpu": 100.0}), *OUTCOMES[1:]]
    assert "14 prefill and 4 decode workers" in answered(other, confirmation(load)).headline


@pytest.mark.parametrize("unmeasured", [0, 1])
def test_a_kind_that_only_the_confirmation_measured_is_named_and_compared(
    load: Load, unmeasured: int
) -> None:
    """First or second, it has a name, a rate, a loss and what was expected; the study has no trial of it."""
    interval = Interval(low=131.2, median=135.3, high=139.4)
    record = confirmation(load, CAPACITIES_QPS[:2], expected={unmeasured: interval})
    record = Confirmation.model_validate_json(record.model_dump_json(by_alias=True))
    trials = [outcome for outcome in OUTCOMES[:2] if outcome.number != unmeasured]
    name = f"{14 - unmeasured}P{4 + unmeasured}D"
    section = confirmation_section(study(), trials, record, trials[0].trial_id)
    (row,) = (row for row in section.rows if row.trial == "not measured before")
    assert row.name.startswith(name)
    assert record.configurations[unmeasured].number is None
    said = f"The study did not measure {row.name}, and expected 135.3 output tokens/s/GPU at its capacity"
    text = render_confirmation(study(), trials, record)
    for shown in ("\n".join(section.notes), text):
        assert f"{said} (90 % interval: 131.2 to 139.4); on new deployments it gives 14" in shown
    assert section.rows[1].comparison.startswith("not distinguishable from the best: loses 0.6 %")
    result = answered(trials, record)
    bars = {bar.label: bar for bar in result.picture.rows}
    assert [bar.is_recommended for label, bar in bars.items() if label.startswith(name)] == [unmeasured == 0]
    assert "14 prefill and 4 decode workers" in result.headline
    assert "13P5D" in dict(result.facts)["Next best"]
    assert "13P5D" in text.splitlines()[1]
    assert ("(not measured before)" in text) == (unmeasured == 1)


def test_unconfirmed_answer_recommends_the_command_with_its_backend() -> None:
    command = ("+sweep=pd_split", "cluster=slurm", "cluster.partition=batch", "study.seed=7", "runs_dir=r")
    notes = answered(OUTCOMES, None, backend="slurm", command=command).notes
    assert any(
        "measure the best configurations again on new deployments: python -m tune action=confirm "
        "study.name=pd_split-sim cluster=slurm cluster.partition=batch runs_dir=r." in note
        for note in notes
    )


def test_report_of_repeats_recommends_no_confirmation() -> None:
    notes = answered(OUTCOMES, None, name="pd_split-sim.confirm").notes
    assert "These trials are repeats: the report of pd_split-sim shows the confirmation." in notes
    assert not any("action=confirm" in note for note in notes)


@pytest.mark.slow
def test_page_shows_interval_rate_and_comparison_of_each_configuration(load: Load, tmp_path: Path) -> None:
    record = confirmation(load)
    text = write_report(tmp_path, study(), OUTCOMES, confirmation=record).read_text(encoding="utf-8")
    page = Page(text)
    assert '<a href="#confirmed">Confirmed</a>' in text
    assert text.count('<section id="confirmed" ') == 1
    first, tied, lower = confirmation_section(study(), OUTCOMES, record, OUTCOMES[0].trial_id).rows
    assert first.comparison == "the best"
    assert tied.comparison.startswith("not distinguishable from the best: loses 0.6 % (-1.8 to 3.0 %)")
    assert lower.comparison == "loses 19.2 % (17.2 to 21.1 %) of the output tokens/s/GPU"
    for row in (first, tied, lower):
        for shown in (row.name, row.mean, row.interval, row.guaranteed, row.throughput, row.verified):
            assert shown in page.text
    assert "The study spent 1,230 GPU-hours, the confirmation 346." in page.text
    assert f"load.target_qps={record.configurations[0].guaranteed_qps!r} load.mode=fixed" in page.text
    unconfirmed = write_report(tmp_path, study(), OUTCOMES).read_text(encoding="utf-8")
    assert 'id="confirmed"' not in unconfirmed


def test_best_trial_that_was_not_confirmed_is_named(load: Load) -> None:
    notes = confirmation_section(study(), OUTCOMES, confirmation(load), OUTCOMES[3].trial_id).notes
    assert any(
        "Trial 3, now first in the ranking, is not among them" in note and "action=confirm" in note
        for note in notes
    )


def test_trial_without_record_is_named_by_its_number(load: Load) -> None:
    assert (
        "Guaranteed at 95 % confidence: trial 0 holds its SLO in one further full run at"
        in render_confirmation(study(), [], confirmation(load))
    )


def test_one_repeat_gives_no_interval_and_no_guarantee(load: Load) -> None:
    record = confirmation(load, ((16.1,), (15.0,)))
    text = render_confirmation(study(), OUTCOMES, record)
    assert (
        "the mean capacity of 1 new deployment is 16.1 QPS, but no rate is guaranteed: one repeat gives"
        in text
    )
    assert "run it" not in text
    shown = confirmation_section(study(), OUTCOMES, record, OUTCOMES[0].trial_id)
    assert (shown.rows[0].interval, shown.rows[0].guaranteed) == ("–", "–")


def test_confirmation_without_a_holding_configuration_says_so(load: Load) -> None:
    record = confirmation(load, ((16.1, 0.0), (0.0, 0.0)))
    text = render_confirmation(study(), OUTCOMES, record)
    assert text.startswith(
        "confirm   No configuration held its SLO when it was measured again: on a deployment no rate"
    )


def test_terminal_shows_guaranteed_rate_others_notes_and_command(load: Load) -> None:
    record = confirmation(load)
    first = record.configurations[0]
    lines = render_confirmation(study(), OUTCOMES, record).splitlines()
    assert lines[0].startswith("confirm   Guaranteed at 95 % confidence: 14P4D")
    assert sum(line.startswith("compared  ") for line in lines) == 2
    assert lines[-2:] == [
        f"run it    {formatting.command(first.overrides)}",
        "          one full run holds with 95 % confidence; every simulated shuffle is such a run, so the "
        "verdict may be 4 of 5",
    ]
    on_rack = render_confirmation(study(backend="slurm"), OUTCOMES, record).splitlines()
    assert on_rack[-1].startswith("run it    "), "a rack runs one shuffle"
    assert any("Not distinguishable from the best at 95 % confidence: 13P5D" in line for line in lines)
    assert any("12P6D" in line and "; loses 19.2 % (17.2 to 21.1 %) of" in line for line in lines)
    assert any("varies by 1.2 % from shuffle to shuffle" in line for line in lines)
    assert any(_verified(first) in line for line in lines)
    assert any("the highest verified rate is 16.05 QPS." in line for line in lines)


def _verified(first: ConfirmedConfiguration) -> str:
    return f"In {first.slo_met_repeats} of 3 repeats a full run held at the guaranteed rate or a higher one"


def test_a_simulated_confirmation_states_the_simulators_own_error(load: Load) -> None:
    record = confirmation(load)
    first, tied, lower = record.configurations
    assert lower.loss
    simulated = record.model_copy(
        update={
            "configurations": (
                first.model_copy(update={"model_error_frac": 0.0523}),
                tied,
                lower.model_copy(update={"loss": lower.loss.model_copy(update={"model_error_frac": 0.05})}),
            )
        }
    )
    text = render_confirmation(study(), OUTCOMES, simulated)
    assert "The simulator's own error of 5.2 % (90 % interval) comes on top" in text
    assert "above the simulator's error of 5 % for this difference" in text
