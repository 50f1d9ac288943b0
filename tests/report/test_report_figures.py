"""Test the figures of a study: marks, axes, counts and limits."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_study import RATE_SPACE, mixed, study, synthetic_trial, unmeasured

from tune.analysis.ranking import rank
from tune.records.outcome import Outcome
from tune.records.study_record import StudyRecord
from tune.report.figures import all_figures
from tune.report.figures.all_figures import study_figures
from tune.report.figures.pareto import pareto_front
from tune.report.figures.style import Figure
from tune.report.trial_status import TRIAL_STATUS_WORDS, trial_status
from tune.spec.load import Slo
from tune.spec.space import ChoiceDimension

pytestmark = pytest.mark.slow


def drawn(record: StudyRecord, outcomes: Sequence[Outcome]) -> dict[str, Figure]:
    ranks = {row["trial_id"]: row["rank"] for row in rank(outcomes)}
    return {figure.name: figure for figure in study_figures(record, outcomes, ranks)}


def rate_sweep(count: int = 20) -> list[Outcome]:
    return [
        synthetic_trial(
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
        (study(), mixed(60), ["importance", "slices"]),
        (study(space=RATE_SPACE), rate_sweep(), ["load"]),
    ],
)
def test_every_figure_has_a_question_a_count_and_axis_titles(
    record: StudyRecord, outcomes: list[Outcome], names: list[str]
) -> None:
    figures = drawn(record, outcomes)
    assert list(figures) == ["ttft_p99", "tpot_p99", "user_speed", *names, "history", "stages"]
    for figure in figures.values():
        assert figure.title.endswith("?")
        notes = [view.note for view in figure.views]
        assert all("n = " in text for text in notes or [figure.caption])
        for spec in [view.spec for view in figure.views] or [figure.spec]:
            assert spec is not None
            layout = [value for key, value in spec["layout"].items() if key[1:5] == "axis"]
            assert any(axis.get("title", {}).get("text") for axis in layout)


def test_marks_are_the_trials_and_their_count_is_true() -> None:
    outcomes = mixed(60)
    figure = drawn(study(), outcomes)["ttft_p99"]
    assert figure.spec is not None
    marks = {trace["name"].split(" (")[0]: trace for trace in figure.spec["data"]}
    for status in ("feasible", "some_shuffles", "slo_violated"):
        numbers = [o.number for o in outcomes if trial_status(o) == status]
        assert numbers
        assert sorted(values(marks[TRIAL_STATUS_WORDS[status]]["customdata"])) == numbers
    feasible = [o for o in outcomes if trial_status(o) == "feasible"]
    assert np.allclose(
        sorted(values(marks["feasible"]["y"])), sorted(o.output_tps_per_gpu or 0 for o in feasible)
    )


def test_axes_are_cut_around_the_limit_and_the_caption_says_so() -> None:
    latencies_s = (2.0, 4.4, 6.0, 9.1, 400.0)
    outcomes = [synthetic_trial(i, ttft_p99_s=s, tps_gpu=100.0 + i) for i, s in enumerate(latencies_s)]
    figure = drawn(study(), outcomes)["ttft_p99"]
    assert figure.spec is not None
    layout = figure.spec["layout"]
    low, high = layout["xaxis"]["range"]
    assert low < 2.0
    assert high == 9.0
    low, high = layout["yaxis"]["range"]
    assert low < 100.0
    assert 102.0 < high < 103.0
    assert layout["shapes"][0]["x0"] == layout["shapes"][0]["x1"] == 4.5
    assert "2 trials beyond 2 times the limit" in figure.caption


def test_axes_are_whole_where_every_trial_is_near_the_limit() -> None:
    figure = drawn(study(), [synthetic_trial(i, ttft_p99_s=3.0 + i) for i in range(4)])["ttft_p99"]
    assert figure.spec is not None
    assert "range" not in figure.spec["layout"]["xaxis"]
    assert "beyond" not in figure.caption


@given(
    points=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
    rising=st.booleans(),
)
def test_pareto_front_is_what_no_trial_beats(points: list[tuple[int, int]], rising: bool) -> None:
    rows = pd.DataFrame(points, columns=["x", "y"])
    front = pareto_front(rows, "x", "y", rising=rising)
    sign = 1 if rising else -1

    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return sign * a[0] >= sign * b[0] and a[1] >= b[1] and a != b

    expected = {point for point in points if not any(beats(other, point) for other in points)}
    assert list(zip(front["x"], front["y"], strict=True)) == sorted(expected)


def test_lifted_limit_leaves_out_its_figure_with_a_reason() -> None:
    slo = Slo(ttft_p99_s=4.5, tpot_p99_s=None)
    figures = drawn(study(slo=slo), [synthetic_trial(i, slo=slo, qps=10.0 + i) for i in range(3)])
    assert figures["ttft_p99"].spec is not None
    assert figures["tpot_p99"].spec is None
    assert figures["tpot_p99"].caption == "Left out: the study sets no limit on p99 TPOT."


def test_single_trial_has_no_history_and_no_settings() -> None:
    figures = drawn(study(space={}), [synthetic_trial(0)])
    assert figures["history"].spec is None
    assert not {"importance", "slices"} & set(figures)
    assert figures["ttft_p99"].spec is not None


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [unmeasured(0, "failed", "gone"), unmeasured(1, "infeasible", "too big")],
        [synthetic_trial(0, valid=False, reason="no tokens")],
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
    assert values(line["x"])[-1] == pytest.approx(80 * 49.2)


def test_history_without_feasible_trial_has_no_best_line() -> None:
    figure = drawn(study(), [synthetic_trial(i, ttft_p99_s=9.0) for i in range(4)])["history"]
    assert figure.spec is not None
    assert {trace["name"] for trace in figure.spec["data"]} == {"SLO violated (n = 4)", "baseline"}


def test_figures_draw_the_best_ranked_trials_and_the_best_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_figures, "MAX_MARKS", 5)
    outcomes = [synthetic_trial(i, qps=8 + i / 10) for i in range(12)]
    for name in ("ttft_p99", "user_speed", "history"):
        spec = drawn(study(), outcomes)[name].spec
        assert spec is not None
        marks = {trace["name"].split(" (")[0]: trace for trace in spec["data"]}
        assert sorted(values(marks["SLO held in some shuffles"]["customdata"])) == [7, 8, 9, 10, 11]
        assert list(values(marks["best"]["customdata"])) == [11]


def test_rate_sweep_has_a_panel_per_figure_and_its_limits() -> None:
    figure = drawn(study(space=RATE_SPACE), rate_sweep())["load"]
    assert figure.spec is not None
    titles = [axes(figure)[name]["title"]["text"] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["output tokens/s per GPU", "p99 TTFT, s (log scale)", "p99 TPOT, ms"]
    assert [shape["y0"] for shape in figure.spec["layout"]["shapes"]] == [4.5, 80.0]


def test_slices_show_every_value_of_a_setting_in_its_order() -> None:
    figures = drawn(study(), mixed(60))
    views = {view.name: view for view in figures["slices"].views}
    assert set(views) == {f"slices-{name}" for name in study().space}
    axis = views["slices-prefill_max_num_tokens"].spec["layout"]["xaxis"]
    assert list(axis["ticktext"]) == ["2048", "4096", "8192"]
    graphs = views["slices-decode_cuda_graphs"].spec
    assert list(graphs["layout"]["xaxis"]["ticktext"]) == ["listed", "powers_of_two", "none"]
    assert sum(len(values(t["x"])) for t in graphs["data"] if "n = " in t["name"]) == sum(
        o.valid for o in mixed(60)
    )


def test_setting_that_took_one_value_has_no_slice() -> None:
    choice = ChoiceDimension(kind="choice", path="prefill.kv_cache_config.dtype", values=("fp8", "auto"))
    outcomes = [synthetic_trial(i, provenance={"params": {"dtype": "fp8"}}) for i in range(3)]
    assert not drawn(study(space={"dtype": choice}), outcomes)["slices"].views


def test_stages_are_left_out_if_none_is_recorded() -> None:
    figures = drawn(study(), [synthetic_trial(0, breakdown=None), synthetic_trial(1, breakdown=None)])
    assert figures["stages"].spec is None
    assert "Left out" in figures["stages"].caption


def test_stages_show_the_best_ranked_trials_in_order() -> None:
    figure = drawn(study(), [synthetic_trial(i, tps_gpu=100.0 + i) for i in range(12)])["stages"]
    assert figure.spec is not None
    bars = figure.spec["data"][0]
    assert values(bars["y"])[:2] == ["#1 · trial 11", "#2 · trial 10"]
    assert len(values(bars["y"])) == 8
