"""Test what is shown of a surrogate search, on the page and in the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.composed import composed
from support.synthetic_posterior import PARAMETERS, interval, learned_study, posterior_of
from support.synthetic_search import searched_trial
from support.synthetic_study import mixed, study, synthetic_trial, unmeasured

from tune.records.confirmation import Confirmation
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, KindPosterior, PosteriorSummary, TrialPosterior
from tune.records.proposals import Proposal
from tune.report.figures.posterior_parameters import posterior_figure
from tune.report.figures.prediction_error import prediction_figure
from tune.report.figures.style import Figure
from tune.report.page import write_report
from tune.report.posterior_text import gain_sentence, learned_sentences, parameter_rows
from tune.report.prediction_pairs import prediction_pairs
from tune.report.rival_text import rival_sentence
from tune.report.sections.learned import HYPOTHESES, learned_section
from tune.report.terminal import render_posterior, render_status
from tune.surrogate.prior import structural_hypotheses

GOLDEN = Path(__file__).parent / "golden_learned.html"
EMPTY_POSTERIOR = posterior_of().model_copy(update={"parameters": (), "hypotheses": ()})


def proposal(outcome: Outcome, expected_capacity_qps: Interval | None) -> Proposal:
    return Proposal(
        number=outcome.number,
        params={},
        source="surrogate",
        trial_id=outcome.trial_id,
        expected_capacity_qps=expected_capacity_qps,
    )


def drawn(outcomes: list[Outcome], *predictions: Interval | None) -> Figure:
    proposals = [proposal(outcome, qps) for outcome, qps in zip(outcomes, predictions, strict=True)]
    return prediction_figure(prediction_pairs(outcomes, proposals))


def traces(figure: Figure) -> dict[str, dict[str, Any]]:
    assert figure.spec
    return {trace["name"]: trace for trace in figure.spec["data"] if "name" in trace}


def test_search_without_posterior_has_no_such_section(tmp_path: Path) -> None:
    text = write_report(tmp_path, study(), mixed(20)).read_text(encoding="utf-8")
    assert 'id="learned"' not in text
    assert "#learned" not in text
    assert "learned" not in render_status(study(), (), mixed(20))


def test_every_hypothesis_has_a_sentence() -> None:
    settings = composed()
    assert settings.cluster.calibration
    names = {
        hypothesis.name
        for hypothesis in structural_hypotheses(settings.trial_spec, settings.cluster.calibration)
    }
    assert names == set(HYPOTHESES)


@pytest.mark.parametrize("name", ["expert_router=2", "expert_router"])
def test_unknown_hypothesis_is_shown_by_its_name(name: str) -> None:
    hypothesis = posterior_of().hypotheses[0].model_copy(update={"name": name})
    posterior = posterior_of().model_copy(update={"hypotheses": (hypothesis,)})
    (row,) = learned_section(study(), [], posterior, ()).hypotheses
    assert (row.statement, row.prior, row.posterior) == (name, "30 %", "4 %")


@pytest.mark.slow
def test_section_without_figures_is_golden(tmp_path: Path, regenerate_golden: bool) -> None:
    outcomes, proposals, posterior = learned_study()
    text = write_report(tmp_path, study(), outcomes, posterior=posterior, proposals=proposals).read_text(
        encoding="utf-8"
    )
    assert '<a href="#learned">' in text
    section = re.search(r'<section id="learned".*?</section>\n', text, re.DOTALL)
    assert section
    kept = re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", section[0], flags=re.DOTALL)
    if regenerate_golden:
        GOLDEN.write_text(kept, encoding="utf-8")
    assert kept == GOLDEN.read_text(encoding="utf-8"), "if meant: pytest --regenerate-golden"


def test_every_trial_is_a_mark_beside_its_prediction() -> None:
    failed = unmeasured(3, "failed", "gb07 went down")
    outcomes = [searched_trial(0), searched_trial(1), unmeasured(2, "infeasible", "out of memory"), failed]
    wide = interval(12.0, 15.0, 18.0)
    drawn_traces = traces(drawn(outcomes, None, wide, wide, wide))
    bars = drawn_traces["predicted: median and 90 % interval"]
    assert (bars["x"], bars["y"]) == ([1, 2, 3], [15.0] * 3)
    assert bars["error_y"]["array"] == bars["error_y"]["arrayminus"] == [3.0] * 3
    held = drawn_traces["SLO held in some shuffles (n = 2)"]
    assert (held["x"], held["y"]) == ([0, 1], [16.2, 16.2])
    assert held["hovertext"] == [
        "no prediction<br>measured 16.2 QPS: SLO held in some shuffles",
        "predicted 15 QPS (12 to 18)<br>measured 16.2 QPS: SLO held in some shuffles<br>+8.0 % against the "
        "predicted median",
    ]
    crashed = drawn_traces["infeasible, not measured (n = 1)"]
    assert crashed["x"] == [2]
    assert crashed["y"][0] < 12.0
    assert crashed["hovertext"] == ["predicted 15 QPS (12 to 18)<br>infeasible, not measured"]
    assert "failed, not measured (n = 1)" in drawn_traces
    assert len({drawn_traces[name]["marker"]["symbol"] for name in drawn_traces if "(n =" in name}) == 3


def test_marks_that_are_not_feasible_are_labelled_in_small_studies() -> None:
    outcomes, proposals, _ = learned_study()
    few = prediction_figure(prediction_pairs(outcomes, proposals))
    assert few.spec
    labels = [a["text"] for a in few.spec["layout"]["annotations"]]
    assert sorted(labels) == ["infeasible"] * 2 + ["stopped early"] * 3
    outcomes, proposals, _ = learned_study(60)
    many = prediction_figure(prediction_pairs(outcomes, proposals))
    assert many.spec
    assert "annotations" not in many.spec["layout"]


def test_best_so_far_counts_feasible_trials() -> None:
    outcomes, proposals, _ = learned_study()
    line = traces(prediction_figure(prediction_pairs(outcomes, proposals)))["best so far"]
    capacities = {o.number: o.capacity_qps.estimate for o in outcomes if o.feasible}
    assert line["y"] == sorted(line["y"])
    assert line["y"][-1] == max(qps for qps in capacities.values() if qps)
    assert line["x"][-1] == 15


def test_caption_says_how_predictions_sharpened() -> None:
    outcomes = [searched_trial(n) for n in range(6)]
    sharp, vague = interval(15.9, 16.2, 16.5), interval(9.0, 18.0, 27.0)
    text = drawn(outcomes, vague, vague, vague, sharp, sharp, interval(17.0, 18.0, 19.0)).caption
    assert "5 of 6 measured capacities lie inside the predicted 90 % interval" in text
    assert "for the first 2 trials the interval was ±50 % and the measurement 10.0 % off" in text
    assert "for the last 2 trials the interval was ±4 % and the measurement 5.0 % off" in text
    assert text.endswith("n = 6 trials, 6 with a prediction.")


@pytest.mark.parametrize("outcomes", [[], [searched_trial(0)], [unmeasured(0, "failed", "gb07 went down")]])
def test_without_a_prediction_nothing_is_drawn(outcomes: list[Outcome]) -> None:
    figure = drawn(outcomes, *[None] * len(outcomes))
    assert figure.spec is None
    assert figure.caption.startswith("Left out")


def test_absent_and_zero_capacities_are_drawn() -> None:
    fixed = synthetic_trial(0, spread=None)
    none_held = searched_trial(1, rates=(None, None, 0.0), feasible=False, spread=None)
    figure = drawn([fixed, none_held], interval(0.0, 0.0, 0.0), interval(5.0, 6.0, 8.0))
    assert traces(figure)["SLO violated (n = 1)"]["hovertext"][0].endswith(
        "-100 % against the predicted median"
    )
    assert "1 without a measured capacity, drawn at the offered rate" in figure.caption
    mark = next(trace for name, trace in traces(figure).items() if name.startswith("feasible"))
    assert mark["y"] == [fixed.target_qps]
    assert f"offered {fixed.target_qps:g}" in mark["hovertext"][0]


def test_parameters_are_ordered_by_how_far_they_narrowed() -> None:
    shown = parameter_rows(posterior_of().parameters)
    assert [row.label for row in shown][:2] == ["prefill kernels, step time", "a_new_parameter"]
    assert shown[-1].label == "all-reduce, time"
    assert [row.narrowing for row in shown] == ["pinned down"] * 3 + ["narrowed"] * 3 + ["unchanged"] * 2
    assert "; and show almost nothing about KV transfer and all-reduce. " in learned_sentences(posterior_of())
    assert learned_sentences(EMPTY_POSTERIOR) == "No parameter of the simulator is uncertain."


def test_each_parameter_has_prior_and_posterior_on_a_log_axis() -> None:
    figure = posterior_figure(posterior_of().parameters)
    assert figure.spec
    drawn_traces, layout = traces(figure), figure.spec["layout"]
    assert len(drawn_traces["prior (before any trial)"]["x"]) == len(PARAMETERS)
    posterior_names = ("posterior (after all trials so far)", "posterior, hardly narrower than the prior")
    assert [len(drawn_traces[name]["x"]) for name in posterior_names] == [6, 2]
    assert layout["xaxis"]["type"] == "log"
    low, high = layout["xaxis"]["range"]
    assert low < math.log10(0.2) < math.log10(5.0) < high
    assert "×1" in layout["xaxis"]["ticktext"]
    (line,) = layout["shapes"]
    assert line["x0"] == line["x1"] == 1
    names = {a["text"] for a in layout["annotations"]}
    assert {"prefill kernels, step time", "×0.83 (0.79 to 0.87)", "a_new_parameter"} <= names


def test_parameter_with_a_zero_factor_is_left_out_and_counted() -> None:
    zero = posterior_of().parameters[0].model_copy(update={"posterior": interval(0.0, 0.5, 1.0)})
    figure = posterior_figure((zero, *posterior_of().parameters[1:]))
    assert "1 without an interval of positive factors left out" in figure.caption
    assert posterior_figure((zero,)).spec is None


def posterior_with_errors(*standardised_residual: float) -> PosteriorSummary:
    return posterior_of(
        tuple(
            TrialPosterior(
                trial_id=f"{n:012x}",
                number=n,
                measured_qps=15.0,
                simulated_qps=interval(15.5, 16.0, 16.5),
                standardised_residual=off,
            )
            for n, off in enumerate(standardised_residual)
        )
    )


def test_unexplained_trials_come_farthest_first() -> None:
    outcomes = [searched_trial(n) for n in range(3)]
    section = learned_section(study(), outcomes, posterior_with_errors(1.9, 2.0, -3.1, 2.5), ())
    assert [trial.number for trial in section.unexplained] == [2, 3, 1]
    farthest, unknown = section.unexplained[:2]
    assert farthest.configuration == "14P4D, prefill max_num_tokens 8192, decode CUDA graphs none"
    assert (farthest.measured, farthest.simulated) == ("15", "16 (15.5 to 16.5)")
    assert farthest.difference == "3.1 sd below, -6.2 %"
    assert unknown.configuration == "trial 000000000003"


def test_without_unexplained_trials_the_farthest_is_named() -> None:
    section = learned_section(study(), [], posterior_with_errors(0.4, -1.5), ())
    assert section.unexplained == ()
    assert section.all_explained == (
        "The simulator explains every measured capacity: none of 2 lies 2 standard deviations or more from "
        "the simulated one. The farthest, trial 1, was measured at 15 QPS and simulated at 16 (15.5 to "
        "16.5): 1.5 sd below, -6.2 %."
    )
    empty = learned_section(study(), [], EMPTY_POSTERIOR, ())
    assert empty.all_explained == "No trial has a measured capacity yet."


def test_terminal_shows_what_was_learned_and_the_expected_gain() -> None:
    outcomes, proposals, posterior = learned_study()
    assert render_posterior(study(), outcomes, posterior).splitlines() == [
        "learned   prefill kernels ×0.83 (0.79 to 0.87), a_new_parameter ×1.60 (1.50 to 1.90), "
        "decode kernels ×1.06 (0.95 to 1.19)",
        "          as factors on the calibrated values, with 90 % intervals",
        "          almost nothing about KV transfer, all-reduce",
        "next      Another trial is expected to raise the best rate by 1.2 %.",
    ]
    assert render_status(study(), proposals, outcomes, posterior).endswith(
        render_posterior(study(), outcomes, posterior)
    )
    assert render_posterior(study(), [], EMPTY_POSTERIOR).startswith(
        "learned   no parameter is pinned down yet\nnext"
    )
    assert gain_sentence(EMPTY_POSTERIOR.model_copy(update={"expected_improvement_frac": 1e-7})).endswith(
        "less than 0.1 %."
    )


@pytest.mark.parametrize("probability", [None, 0.1])
def test_no_rival_is_named_where_none_is_known_or_likely(probability: float | None) -> None:
    posterior = with_rival(probability)
    assert rival_sentence(study(), [], posterior) is None
    assert "unsure" not in render_posterior(study(), [], posterior)


TOGETHER = "action=confirm confirm.configurations={} measures both again and would decide."
APART = (
    "action=confirm measures one trial of each kind (split and parallelism), and not both of these. To "
    "decide, run the two under a study.name of their own, with their overrides in ranking.csv; "
    "action=confirm with that study.name measures both again."
)


@pytest.mark.parametrize(
    ("splits", "tps_gpu", "ttft_p99_s", "decides"),
    [
        ((14, 13), (130, 125), 4.2, TOGETHER.format(2)),
        ((14, 13, 12), (130, 120, 125), 4.2, TOGETHER.format(3)),
        ((14, 14), (130, 125), 4.2, TOGETHER.format(2)),
        ((14, 14, 13), (130, 125, 120), 4.2, APART),
        ((14, 13, 13), (130, 120, 125), 4.2, APART),
        ((14, 13), (130, 125), 9.0, APART),
    ],
)
def test_a_rival_is_named_with_what_would_decide(
    splits: tuple[int, ...], tps_gpu: tuple[float, ...], ttft_p99_s: float, decides: str
) -> None:
    """The rival, trial 1, holds its SLO or, at 9 s, does not."""
    outcomes = [
        synthetic_trial(number, prefill=split, tps_gpu=tps, ttft_p99_s=ttft_p99_s if number == 1 else 4.2)
        for number, (split, tps) in enumerate(zip(splits, tps_gpu, strict=True))
    ]
    posterior = with_rival(0.41, [outcome.trial_id for outcome in outcomes])
    sentence = f"The answer is trial 0; trial 1 is better with a probability of 41 %. {decides}"
    assert render_posterior(study(), outcomes, posterior).endswith(f"\nunsure    {sentence}")
    assert learned_section(study(), outcomes, posterior, ()).gain.endswith(sentence)


def test_the_answer_is_the_first_of_the_ranking_where_another_has_the_higher_capacity() -> None:
    """Trial 1 is verified at more tokens/s; trial 0 has the higher expected capacity."""
    outcomes = [synthetic_trial(number, prefill=14 - number, tps_gpu=130.0 + number) for number in range(2)]
    posterior = with_rival(0.45, [outcome.trial_id for outcome in outcomes])
    same = {trial.trial_id: {"measured_qps": trial.expected_capacity_qps} for trial in posterior.trials}
    trials = tuple(trial.model_copy(update=same[trial.trial_id]) for trial in posterior.trials)
    sentence = rival_sentence(study(), outcomes, posterior.model_copy(update={"trials": trials}))
    assert sentence
    assert sentence.startswith("The answer is trial 1; trial 0 is better with a probability of 55 %.")


def test_a_confirmation_has_decided() -> None:
    outcomes = [synthetic_trial(number, prefill=14 - number, tps_gpu=130.0 - number) for number in range(2)]
    posterior = with_rival(0.41, [outcome.trial_id for outcome in outcomes])
    section = learned_section(study(), outcomes, posterior, (), Confirmation.model_construct())
    assert "is better with a probability" not in section.gain
    assert "unsure" not in render_posterior(study(), outcomes, posterior, is_confirmed=True)


def test_two_trials_of_one_kind_are_not_both_confirmed_where_another_kind_is_in_reach() -> None:
    outcomes = [synthetic_trial(number, prefill=14, tps_gpu=130.0 - number) for number in range(2)]
    posterior = with_rival(0.41, [outcome.trial_id for outcome in outcomes])
    figure = Interval(low=120.0, median=125.0, high=131.0)
    in_reach = KindPosterior(
        kind="13P5D",
        trial_id="t13",
        is_measured=False,
        expected_output_tps_per_gpu=figure,
        params={"prefill_workers": 13},
    )
    sentence = rival_sentence(study(), outcomes, posterior.model_copy(update={"kinds": (in_reach,)}))
    assert sentence
    assert sentence.endswith(APART)


def with_rival(probability: float | None, ids: Sequence[str] = ("a", "b")) -> PosteriorSummary:
    """Return a posterior of two trials, the first of `ids`; the second is better with this probability."""
    posterior = posterior_with_errors(0.4, -1.5)
    best, rival = (
        trial.model_copy(update={"trial_id": ids[n], "expected_capacity_qps": qps, "better_frac": frac})
        for n, (trial, qps, frac) in enumerate(
            zip(posterior.trials, (15.2, 15.1), (None, probability), strict=True)
        )
    )
    return posterior.model_copy(update={"trials": (best, rival)})
