"""What a search learned of its rack, on the page and in the terminal."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from support.synthetic_belief import PARAMETERS, belief, interval, learned_study
from support.synthetic_search import searched
from support.synthetic_study import measured, mixed, study, unmeasured

from tune.config import compose_overrides
from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, PosteriorSummary, TrialPosterior
from tune.records.proposals import Proposal
from tune.report.figures import posterior_parameters, prediction_error
from tune.report.figures.style import Figure
from tune.report.page import write_report
from tune.report.posterior_text import gain_sentence, learned_sentence, parameter_rows
from tune.report.sections.learned import HYPOTHESES, learned_section
from tune.report.terminal import render_posterior, render_status
from tune.surrogate.prior import hypotheses

GOLDEN = Path(__file__).parent / "golden_belief.html"
NOTHING_TOLD = belief(()).model_copy(update={"parameters": (), "hypotheses": ()})


def proposal(outcome: Outcome, expected_capacity_qps: Interval | None) -> Proposal:
    return Proposal(
        number=outcome.number,
        params={},
        source="surrogate",
        trial_id=outcome.trial_id,
        expected_capacity_qps=expected_capacity_qps,
    )


def drawn(outcomes: list[Outcome], *of: Interval | None) -> Figure:
    proposals = [proposal(outcome, one) for outcome, one in zip(outcomes, of, strict=True)]
    return prediction_error.prediction_figure(prediction_error.prediction_pairs(outcomes, proposals))


def traces(figure: Figure) -> dict[str, dict[str, Any]]:
    assert figure.spec
    return {trace["name"]: trace for trace in figure.spec["data"] if "name" in trace}


def test_a_search_that_learns_no_rack_has_no_such_section(tmp_path: Path) -> None:
    text = write_report(tmp_path, study(), mixed(20)).read_text(encoding="utf-8")
    assert 'id="learned"' not in text
    assert "#learned" not in text
    assert "learned" not in render_status(study(), (), mixed(20))


def test_what_every_hypothesis_says_has_words() -> None:
    settings = compose_overrides([]).settings
    assert settings.cluster.calibration
    found = hypotheses(settings.trial_spec, settings.cluster.calibration)
    assert {one.name for one in found} == set(HYPOTHESES)


def test_the_section_without_its_figures_is_the_golden_one(tmp_path: Path, regenerate_golden: bool) -> None:
    outcomes, proposals, of = learned_study()
    text = write_report(tmp_path, study(), outcomes, belief=of, proposals=proposals).read_text(
        encoding="utf-8"
    )
    assert '<a href="#learned">' in text
    found = re.search(r'<section id="learned">.*?</section>\n', text, re.DOTALL)
    assert found
    kept = re.sub(r"(<script[^>]*>).*?(</script>)", r"\1\2", found[0], flags=re.DOTALL)
    if regenerate_golden:
        GOLDEN.write_text(kept, encoding="utf-8")
    assert kept == GOLDEN.read_text(encoding="utf-8"), "if meant: pytest --regenerate-golden"


def test_every_trial_is_a_mark_beside_what_was_expected_of_it() -> None:
    lost = unmeasured(3, "failed", "gb07 went down")
    outcomes = [searched(0), searched(1), unmeasured(2, "infeasible", "out of memory"), lost]
    wide = interval(12.0, 15.0, 18.0)
    seen = traces(drawn(outcomes, None, wide, wide, wide))
    bars = seen["expected: median and 90 % interval"]
    assert (bars["x"], bars["y"]) == ([1, 2, 3], [15.0] * 3)
    assert bars["error_y"]["array"] == bars["error_y"]["arrayminus"] == [3.0] * 3
    held = seen["feasible (n = 2)"]
    assert (held["x"], held["y"]) == ([0, 1], [16.2, 16.2])
    assert held["hovertext"] == [
        "nothing was expected of it<br>measured 16.2 QPS: feasible",
        "expected 15 QPS (12 to 18)<br>measured 16.2 QPS: feasible<br>+8.0 % against the expected median",
    ]
    crashed = seen["infeasible, not measured (n = 1)"]
    assert crashed["x"] == [2]
    assert crashed["y"][0] < 12.0
    assert crashed["hovertext"] == ["expected 15 QPS (12 to 18)<br>infeasible, not measured"]
    assert "failed, not measured (n = 1)" in seen
    assert len({seen[name]["marker"]["symbol"] for name in seen if "(n =" in name}) == 3


def test_what_did_not_hold_is_named_where_there_is_room() -> None:
    outcomes, proposals, _ = learned_study()
    few = prediction_error.prediction_figure(prediction_error.prediction_pairs(outcomes, proposals))
    assert few.spec
    named = [a["text"] for a in few.spec["layout"]["annotations"]]
    assert sorted(named) == ["given up"] * 3 + ["infeasible"] * 2
    outcomes, proposals, _ = learned_study(60)
    many = prediction_error.prediction_figure(prediction_error.prediction_pairs(outcomes, proposals))
    assert many.spec
    assert "annotations" not in many.spec["layout"]


def test_the_best_so_far_rises_with_what_held_alone() -> None:
    outcomes, proposals, _ = learned_study()
    line = traces(prediction_error.prediction_figure(prediction_error.prediction_pairs(outcomes, proposals)))[
        "best so far"
    ]
    held = {o.number: o.capacity_qps.estimate for o in outcomes if o.feasible}
    assert line["y"] == sorted(line["y"])
    assert line["y"][-1] == max(q for q in held.values() if q)
    assert line["x"][-1] == 15


def test_the_caption_says_how_expectations_sharpened() -> None:
    outcomes = [searched(n) for n in range(6)]
    sharp, vague = interval(15.9, 16.2, 16.5), interval(9.0, 18.0, 27.0)
    text = drawn(outcomes, vague, vague, vague, sharp, sharp, interval(17.0, 18.0, 19.0)).caption
    assert "5 of 6 boundaries were measured inside the 90 % interval" in text
    assert "of the first 2 the interval reached ±50 % and the measurement was 10.0 % off" in text
    assert "of the last 2 the interval reached ±4 % and the measurement was 5.0 % off" in text
    assert text.endswith("n = 6 trials, 6 with an expectation.")


@pytest.mark.parametrize("outcomes", [[], [searched(0)], [unmeasured(0, "failed", "gb07 went down")]])
def test_without_an_expectation_nothing_is_drawn(outcomes: list[Outcome]) -> None:
    figure = drawn(outcomes, *[None] * len(outcomes))
    assert figure.spec is None
    assert figure.caption.startswith("Left out")


def test_a_boundary_that_is_absent_or_zero_breaks_nothing() -> None:
    fixed, none_held = measured(0), searched(1, bracket=(None, None, 0.0), feasible=False)
    figure = drawn([fixed, none_held], interval(0.0, 0.0, 0.0), interval(5.0, 6.0, 8.0))
    assert traces(figure)["SLO broken (n = 1)"]["hovertext"][0].endswith("-100 % against the expected median")
    assert "1 without a boundary, at the rate that they were asked" in figure.caption
    mark = next(one for name, one in traces(figure).items() if name.startswith("feasible"))
    assert mark["y"] == [fixed.target_qps]
    assert f"asked {fixed.target_qps:g}" in mark["hovertext"][0]


def test_parameters_are_told_most_learned_first_and_in_an_engineers_words() -> None:
    shown = parameter_rows(belief(()).parameters)
    assert [row.label for row in shown][:2] == ["prefill kernels, step time", "a_new_one"]
    assert shown[-1].label == "all-reduce, time"
    assert [row.told for row in shown] == ["pinned down"] * 3 + ["narrowed"] * 3 + ["untouched"] * 2
    assert learned_sentence(belief(())).endswith("and say next to nothing of KV transfer and all-reduce.")
    assert learned_sentence(NOTHING_TOLD) == "No parameter of the rack is in doubt."


def test_each_parameter_has_both_intervals_on_a_log_axis_with_a_line_at_one() -> None:
    figure = posterior_parameters.posterior_figure(belief(()).parameters)
    assert figure.spec
    seen, layout = traces(figure), figure.spec["layout"]
    assert len(seen["before any trial"]["x"]) == len(PARAMETERS)
    assert [len(seen[name]["x"]) for name in ("now", "now, hardly narrower")] == [6, 2]
    assert layout["xaxis"]["type"] == "log"
    low, high = layout["xaxis"]["range"]
    assert low < math.log10(0.2) < math.log10(5.0) < high
    assert "×1" in layout["xaxis"]["ticktext"]
    (line,) = layout["shapes"]
    assert line["x0"] == line["x1"] == 1
    names = {a["text"] for a in layout["annotations"]}
    assert {"prefill kernels, step time", "×0.83 (0.79 to 0.87)", "a_new_one"} <= names


def test_a_parameter_whose_factor_may_be_zero_is_left_out_and_counted() -> None:
    zero = belief(()).parameters[0].model_copy(update={"posterior": interval(0.0, 0.5, 1.0)})
    figure = posterior_parameters.posterior_figure((zero, *belief(()).parameters[1:]))
    assert "1 without an interval of positive factors left out" in figure.caption
    assert posterior_parameters.posterior_figure((zero,)).spec is None


def told_off(*standardised_residual: float) -> PosteriorSummary:
    return belief(
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


def test_trials_that_the_simulator_cannot_explain_come_worst_first() -> None:
    outcomes = [searched(n) for n in range(3)]
    seen = learned_section(study(), outcomes, told_off(1.9, 2.0, -3.1, 2.5), ())
    assert [of.number for of in seen.unexplained] == [2, 3, 1]
    worst, unknown = seen.unexplained[:2]
    assert worst.configuration == "14P4D, prefill max_num_tokens 8192, decode CUDA graphs none"
    assert (worst.measured, worst.simulated) == ("15", "16 (15.5 to 16.5)")
    assert worst.off == "3.1 sd below, -6.2 %"
    assert unknown.configuration == "trial 000000000003"


def test_where_there_are_none_the_farthest_is_told() -> None:
    seen = learned_section(study(), [], told_off(0.4, -1.5), ())
    assert seen.unexplained == ()
    assert seen.untold == (
        "None: of 2 measured trials none lies 2 standard deviations or more from what is simulated. The "
        "farthest, trial 1, was measured at 15 QPS and simulated at 16 (15.5 to 16.5): 1.5 sd below, -6.2 %."
    )
    assert (
        learned_section(study(), [], NOTHING_TOLD, ()).untold
        == "Of no trial on record the boundary was searched for and found."
    )


def test_the_terminal_says_what_was_learned_and_what_another_trial_should_gain() -> None:
    outcomes, proposals, of = learned_study()
    assert render_posterior(of).splitlines() == [
        "learned   prefill kernels ×0.83 (0.79 to 0.87), a_new_one ×1.60 (1.50 to 1.90), "
        "decode kernels ×1.06 (0.95 to 1.19)",
        "          next to nothing of KV transfer, all-reduce",
        "next      Another trial is expected to raise the best rate by 1.2 %.",
    ]
    assert render_status(study(), proposals, outcomes, of).endswith(render_posterior(of))
    assert render_posterior(NOTHING_TOLD).startswith("learned   no parameter is pinned down yet\nnext")
    assert gain_sentence(NOTHING_TOLD.model_copy(update={"expected_improvement_frac": 1e-7})).endswith(
        "less than 0.1 %."
    )
