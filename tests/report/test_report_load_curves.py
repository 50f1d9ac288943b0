"""Test the load curves: marks, areas, lines and labels of each deployment."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.synthetic_search import five_probes, probe_at, searched_trial
from support.synthetic_study import spread, study, synthetic_trial

from tune.records.capacity_search import ForecastPoint
from tune.records.outcome import Outcome
from tune.report.figures.load_curves import load_curves
from tune.report.figures.style import FigureView
from tune.spec.load import Slo

TTFT_ONLY = Slo(ttft_p99_s=4.5, tpot_p99_s=None)


def view(outcome: Outcome, slo: Slo = TTFT_ONLY) -> FigureView:
    (figure,) = load_curves(study(slo=slo), [outcome], {outcome.trial_id: 1})
    (only,) = figure.views
    return only


def marks(drawing: FigureView) -> dict[str, dict[str, Any]]:
    """Return the traces of probes by name; those of the first panel."""
    return {t["name"]: t for t in reversed(drawing.spec["data"]) if t.get("hovertext")}


def shapes(drawing: FigureView, kind: str) -> list[dict[str, Any]]:
    return [shape for shape in drawing.spec["layout"]["shapes"] if shape["type"] == kind]


def test_forecast_is_a_line_with_its_range_over_shuffles() -> None:
    own = ((4.0, 0.3), (15.9, 0.8), (16.25, 1.0), (16.6, 1.4), (60.0, 50.0), (90.0, 99.0))
    points = (
        *(ForecastPoint(target_qps=qps, shuffles=1, used={"ttft_p99": (used,) * 3}) for qps, used in own),
        ForecastPoint(target_qps=16.0, shuffles=25, used={"ttft_p99": (0.7, 0.9, 1.1)}),
        ForecastPoint(target_qps=16.2, shuffles=13, used={"ttft_p99": (0.8, 1.0, 1.3)}),
    )
    traces = {t.get("name"): t for t in view(searched_trial(forecast=points)).spec["data"]}
    line = traces["forecast, own shuffle"]
    assert list(line["x"]) == [4.0, 15.9, 16.25, 16.6, 60.0]
    assert list(line["y"]) == pytest.approx([4.5 * used for used in (0.3, 0.8, 1.0, 1.4, 50.0)])
    band = traces["forecast, range and median over shuffles"]
    assert list(band["x"]) == [16.0, 16.2, 16.2, 16.0]
    assert list(band["y"]) == pytest.approx([4.5 * used for used in (1.1, 1.3, 0.8, 0.7)])
    assert list(traces["forecast, median"]["y"]) == pytest.approx([4.05, 4.5])


def test_search_without_a_forecast_on_record_has_no_line() -> None:
    assert not any("forecast" in (t.get("name") or "") for t in view(searched_trial()).spec["data"])


def test_study_of_fixed_rates_has_no_load_curves() -> None:
    assert load_curves(study(), [synthetic_trial(0), synthetic_trial(1)], {}) == []


def test_views_are_ordered_best_first_and_unranked_last() -> None:
    outcomes = [searched_trial(0), synthetic_trial(1), searched_trial(2), searched_trial(3)]
    (figure,) = load_curves(study(), outcomes, {outcomes[0].trial_id: 2, outcomes[3].trial_id: 1})
    assert [v.name for v in figure.views] == ["rates-3", "rates-0", "rates-2"]
    assert figure.views[0].label == "#1 · trial 3 · 14P4D · 16.05 QPS verified"
    assert figure.views[2].label == "trial 2 · 14P4D · 16.05 QPS verified"
    assert figure.caption.endswith("n = 3.")


def test_every_probe_is_a_mark_named_by_length_and_status() -> None:
    invalid = probe_at(15.0, 4.0, valid=False, feasible=False, full=False)
    traces = marks(view(searched_trial(probes=(*five_probes(), invalid, probe_at(16.0, 4.2)))))
    points = {name: (trace["x"], trace["text"]) for name, trace in traces.items()}
    assert points == {
        "short run, held": ([16.4], ["2"]),
        "short run, missed": ([18.0], ["1"]),
        "short run, invalid": ([15.0], ["6"]),
        "full run, held": ([16.05, 16.0], ["5", "7"]),
        "full run, missed": ([16.3], ["4"]),
        "full run, aborted": ([16.6], ["3"]),
    }
    looks = {(trace["marker"]["symbol"], trace["marker"]["size"]) for trace in traces.values()}
    assert len(looks) == len(traces)


def test_bar_of_a_probe_spans_its_shuffles() -> None:
    trace = marks(view(searched_trial()))["full run, missed"]
    recorded, value = five_probes()[3].spread, trace["y"][0]
    assert recorded is not None
    assert recorded.ttft_p99_s is not None
    assert value + trace["error_y"]["array"][0] == pytest.approx(recorded.ttft_p99_s.max)
    assert value - trace["error_y"]["arrayminus"][0] == pytest.approx(recorded.ttft_p99_s.min)


def test_areas_capacity_and_limit_stand_at_their_values() -> None:
    drawing = view(searched_trial())
    held, missed = shapes(drawing, "rect")
    low, high = drawing.spec["layout"]["xaxis"]["range"]
    assert (held["x0"], held["x1"]) == (low, 16.05)
    assert (missed["x0"], missed["x1"]) == (16.3, high)
    capacity, limit = shapes(drawing, "line")
    assert capacity["x0"] == capacity["x1"] == 16.2
    assert limit["y0"] == limit["y1"] == 4.5
    texts = {a["text"] for a in drawing.spec["layout"]["annotations"]}
    assert texts == {"16.05 verified", "16.3 missed", "estimated capacity 16.2", "limit 4.5 s"}
    assert low < 16.05
    assert high > 18.0


def test_unbounded_rate_has_no_areas_and_no_capacity_line() -> None:
    drawing = view(searched_trial(probes=(probe_at(15.75, 1004.0, full=False),), rates=(None, None, 0.0)))
    assert shapes(drawing, "rect") == []
    assert [s["y0"] for s in shapes(drawing, "line")] == [4.5]
    axis = drawing.spec["layout"]["yaxis"]
    assert axis["type"] == "log"
    assert axis["range"][0] < math.log10(4.5) < math.log10(1004.0) < axis["range"][1]


def test_every_limit_that_is_set_has_a_panel() -> None:
    slo = Slo.model_validate({"ttft_p99_s": 4.5, "tpot_p99_s": 0.08, "latency_mean_s": 50.0})
    drawing = view(searched_trial(), slo)
    layout = drawing.spec["layout"]
    titles = [layout[axis]["title"]["text"] for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["p99 TTFT, s", "p99 TPOT, ms", "mean latency, s"]
    assert [s["y0"] for s in shapes(drawing, "line") if s["y0"] == s["y1"]] == [4.5, 80.0, 50.0]
    assert len(shapes(drawing, "rect")) == 6
    assert "yaxis2" not in view(searched_trial()).spec["layout"]
    assert drawing.height_px > view(searched_trial()).height_px


def test_lifted_limits_and_unanswered_probes_are_drawn() -> None:
    lifted = Slo(ttft_p99_s=None, tpot_p99_s=None)
    assert marks(view(searched_trial(), lifted)).keys() == marks(view(searched_trial())).keys()
    unanswered = probe_at(16.0, 4.0, valid=False, feasible=False, reason="no answer").model_copy(
        update={"ttft_s": None, "tpot_s": None}
    )
    drawing = view(searched_trial(probes=(unanswered, probe_at(15.0, 4.0)), rates=(15.0, None, 15.2)))
    assert list(marks(drawing)) == ["full run, held"]


def test_lines_join_completed_probes_of_one_length() -> None:
    lines = [t["x"] for t in view(searched_trial()).spec["data"] if t["mode"] == "lines"]
    assert lines == [[16.4, 18.0], [16.05, 16.3]]


def test_hover_shows_every_figure_and_escapes_reasons() -> None:
    outcome = searched_trial(
        probes=(
            probe_at(16.3, 4.62, reason="<b>late</b> & lost"),
            probe_at(16.05, 4.31, spread=spread(4, 4.3)),
        )
    )
    traces = marks(view(outcome, study().slo))
    assert traces["full run, held"]["hovertext"] == [
        "<b>Probe 2 of 2, full run: held</b><br>16.05 queries/s, 16.05 completed; 16,626 queries<br>"
        "p99 TTFT 4.31 s of 4.50 s (96 %), 4.00 s to 4.90 s over shuffles<br>"
        "p99 TPOT 59.0 ms of 80.0 ms (74 %), 59.0 ms to 61.0 ms over shuffles<br>"
        "SLO held in 4 of 5 shuffles"
    ]
    assert traces["full run, missed"]["hovertext"][0].endswith("&lt;b&gt;late&lt;/b&gt; &amp; lost")
