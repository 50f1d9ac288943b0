"""The figures of a study: marks, axes, counts and limits."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.synthetic_study import RATE_SPACE, measured, mixed, study, unmeasured

from tune.analysis.ranking import rank
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.figures.all_figures import study_figures
from tune.report.figures.style import MANY_POINTS, Figure
from tune.spec.load import Slo
from tune.spec.space import ChoiceDimension


def drawn(record: StudyRecord, outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    ranks = {row["trial_id"]: row["rank"] for row in rank(outcomes)}
    return {figure.name: figure for figure in study_figures(record, outcomes, ranks)}


def rate_sweep(count: int = 20) -> list[Outcome]:
    return [
        measured(
            i,
            qps=8 + i / 2,
            ttft_p99_s=1.0 + i,
            tpot_p99_s=0.03 + i / 1e3,
            provenance={"params": {"target_qps": 8 + i / 2}},
        )
        for i in range(count)
    ]


def values(packed: Any) -> list[Any]:
    """Return the numbers of a trace's array, which plotly may have packed as base64."""
    if isinstance(packed, dict):
        return list(np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"]))
    return list(packed)


def axes(figure: Figure) -> dict[str, Any]:
    assert figure.spec is not None
    return {key: value for key, value in figure.spec["layout"].items() if key[1:5] == "axis"}


@pytest.mark.parametrize(
    ("record", "outcomes", "names"),
    [
        (study(), mixed(60), ["ttft_p99", "tpot_p99", "history", "map", "stages"]),
        (study(space=RATE_SPACE), rate_sweep(), ["ttft_p99", "tpot_p99", "load", "history", "stages"]),
    ],
)
def test_every_figure_has_a_question_a_count_and_axis_titles(
    record: StudyRecord, outcomes: list[Outcome], names: list[str]
) -> None:
    figures = drawn(record, outcomes)
    assert list(figures) == names
    for figure in figures.values():
        assert figure.title.endswith("?")
        assert "n = " in figure.caption
        titles = [axis.get("title", {}).get("text", "") for axis in axes(figure).values()]
        assert any(titles)


def test_marks_are_the_trials_and_their_count_is_true() -> None:
    outcomes = mixed(60)
    figure = drawn(study(), outcomes)["ttft_p99"]
    assert figure.spec is not None
    marks = {trace["name"].split(" (")[0]: trace for trace in figure.spec["data"]}
    feasible = [o for o in outcomes if o.feasible]
    assert sorted(values(marks["feasible"]["customdata"])) == [o.number for o in feasible]
    assert sum(len(values(marks[name]["x"])) for name in ("feasible", "SLO violated")) == sum(
        o.valid for o in outcomes
    )
    assert np.allclose(
        sorted(values(marks["feasible"]["y"])), sorted(o.output_tps_per_gpu or 0 for o in feasible)
    )


@pytest.mark.parametrize(("worst_s", "log"), [(6.0, False), (60.0, True)])
def test_limit_stands_at_its_value_on_both_kinds_of_axis(worst_s: float, log: bool) -> None:
    figure = drawn(study(), [measured(0, ttft_p99_s=2.0), measured(1, ttft_p99_s=worst_s)])["ttft_p99"]
    assert figure.spec is not None
    layout = figure.spec["layout"]
    assert layout["xaxis"]["type"] == ("log" if log else "linear")
    assert layout["shapes"][0]["x0"] == layout["shapes"][0]["x1"] == 4.5
    assert layout["annotations"][0]["x"] == pytest.approx(math.log10(4.5) if log else 4.5)


def test_lifted_limit_leaves_out_its_figure_with_a_reason() -> None:
    slo = Slo(ttft_p99_s=4.5, tpot_p99_s=None)
    figures = drawn(study(slo=slo), [measured(i, slo=slo, qps=10.0 + i) for i in range(3)])
    assert figures["ttft_p99"].spec is not None
    assert figures["tpot_p99"].spec is None
    assert figures["tpot_p99"].caption == "Left out: the study sets no limit on p99 TPOT."


def test_single_trial_has_no_history_and_no_map() -> None:
    figures = drawn(study(space={}), [measured(0)])
    assert figures["history"].spec is None
    assert figures["map"].spec is None
    assert figures["ttft_p99"].spec is not None


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [unmeasured(0, "failed", "gone"), unmeasured(1, "infeasible", "too big")],
        [measured(0, valid=False, reason="no tokens")],
    ],
)
def test_without_valid_measurement_nothing_is_drawn(outcomes: list[Outcome]) -> None:
    (only,) = drawn(study(), outcomes).values()
    assert only.spec is None
    assert "nothing to draw" in only.caption


def test_best_so_far_never_falls_and_counts_feasible_trials() -> None:
    outcomes = mixed(80)
    figure = drawn(study(), outcomes)["history"]
    assert figure.spec is not None
    line = next(trace for trace in figure.spec["data"] if trace["name"] == "best feasible so far")
    best = values(line["y"])
    assert best == sorted(best)
    assert best[-1] == max(o.output_tps_per_gpu or 0 for o in outcomes if o.feasible)
    assert values(line["x"])[-1] == 79


def test_history_without_feasible_trial_has_no_best_line() -> None:
    figure = drawn(study(), [measured(i, ttft_p99_s=9.0) for i in range(4)])["history"]
    assert figure.spec is not None
    assert {trace["name"] for trace in figure.spec["data"]} == {"SLO violated (n = 4)", "baseline"}


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kind"), [(MANY_POINTS // 2, "scatter"), (2 * MANY_POINTS, "scattergl")])
def test_webgl_draws_many_points(count: int, kind: str) -> None:
    outcomes = [measured(i, qps=8 + i / count) for i in range(count)]
    figures = drawn(study(), outcomes)
    for name in ("ttft_p99", "history", "map"):
        spec = figures[name].spec
        assert spec is not None
        assert {t["type"] for t in spec["data"] if t.get("customdata") is not None} == {kind}


def test_rate_sweep_has_a_panel_per_figure_and_its_limits() -> None:
    figure = drawn(study(space=RATE_SPACE), rate_sweep())["load"]
    assert figure.spec is not None
    titles = [axes(figure)[name]["title"]["text"] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["output tokens/s per GPU", "p99 TTFT, s (log scale)", "p99 TPOT, ms"]
    assert [shape["y0"] for shape in figure.spec["layout"]["shapes"]] == [4.5, 80.0]


def test_map_needs_numeric_settings() -> None:
    choice = ChoiceDimension(kind="choice", path="prefill.kv_cache_config.dtype", values=("fp8", "auto"))
    figures = drawn(study(space={"dtype": choice}), [measured(i) for i in range(3)])
    assert figures["map"].spec is None


def test_stages_are_left_out_if_none_is_recorded() -> None:
    figures = drawn(study(), [measured(0, breakdown=None), measured(1, breakdown=None)])
    assert figures["stages"].spec is None
    assert "Left out" in figures["stages"].caption


def test_stages_show_the_best_ranked_trials_in_order() -> None:
    figure = drawn(study(), [measured(i, tps_gpu=100.0 + i) for i in range(12)])["stages"]
    assert figure.spec is not None
    bars = figure.spec["data"][0]
    assert values(bars["y"])[:2] == ["#1 · trial 11", "#2 · trial 10"]
    assert len(values(bars["y"])) == 8
