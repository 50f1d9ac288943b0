from __future__ import annotations

import math
from typing import Any

import pytest
from support.probes import spread
from support.synthetic_search import asked, five_probes, searched
from support.synthetic_study import measured, study

from tune.records.outcome import Outcome
from tune.report.figures.load_curves import load_curves
from tune.report.figures.style import FigureView
from tune.spec.load import Slo

TPOT_BINDS = searched(probes=(asked(13.5, 1.9, 0.0815), asked(13.1, 1.8, 0.078)), bracket=(13.1, 13.5, 13.3))


def view(outcome: Outcome, slo: Slo | None = None) -> FigureView:
    record = study() if slo is None else study(slo=slo)
    (figure,) = load_curves(record, [outcome], {outcome.trial_id: 1})
    (only,) = figure.views
    return only


def marks(seen: FigureView) -> dict[str, dict[str, Any]]:
    """The traces of probes by name; those of the first panel where there are two."""
    return {t["name"]: t for t in reversed(seen.spec["data"]) if t.get("hovertext")}


def shapes(seen: FigureView, kind: str) -> list[dict[str, Any]]:
    return [shape for shape in seen.spec["layout"]["shapes"] if shape["type"] == kind]


def test_a_study_of_fixed_rates_has_no_such_figure() -> None:
    assert load_curves(study(), [measured(0), measured(1)], {}) == []


def test_every_deployment_has_a_view_best_first_and_the_unranked_last() -> None:
    outcomes = [searched(0), measured(1), searched(2), searched(3)]
    (figure,) = load_curves(study(), outcomes, {outcomes[0].trial_id: 2, outcomes[3].trial_id: 1})
    assert [v.name for v in figure.views] == ["rates-3", "rates-0", "rates-2"]
    assert figure.views[0].label == "#1 · trial 3 · 14P4D · 16.05 QPS held"
    assert figure.views[2].label == "trial 2 · 14P4D · 16.05 QPS held"
    assert figure.caption.endswith("n = 3.")


def test_every_probe_is_a_mark_whose_name_tells_length_and_verdict() -> None:
    untrusted = asked(15.0, 4.0, valid=False, feasible=False, full=False)
    seen = marks(view(searched(probes=(*five_probes(), untrusted, asked(16.0, 4.2)))))
    told = {name: (trace["x"], trace["text"]) for name, trace in seen.items()}
    assert told == {
        "short probe, held": ([16.4], ["2"]),
        "short probe, missed": ([18.0], ["1"]),
        "short probe, not trusted": ([15.0], ["6"]),
        "full length, held": ([16.05, 16.0], ["5", "7"]),
        "full length, missed": ([16.3], ["4"]),
        "full length, stopped early": ([16.6], ["3"]),
    }
    looks = {(trace["marker"]["symbol"], trace["marker"]["size"]) for trace in seen.values()}
    assert len(looks) == len(seen)


def test_the_bar_of_a_probe_reaches_over_its_orders() -> None:
    trace = marks(view(searched()))["full length, missed"]
    over, value = five_probes()[3].spread, trace["y"][0]
    assert over is not None
    assert over.ttft_p99_s is not None
    assert value + trace["error_y"]["array"][0] == pytest.approx(over.ttft_p99_s.max)
    assert value - trace["error_y"]["arrayminus"][0] == pytest.approx(over.ttft_p99_s.min)


def test_ground_boundary_and_limit_stand_at_their_values() -> None:
    seen = view(searched())
    held, missed = shapes(seen, "rect")
    low, high = seen.spec["layout"]["xaxis"]["range"]
    assert (held["x0"], held["x1"]) == (low, 16.05)
    assert (missed["x0"], missed["x1"]) == (16.3, high)
    boundary, limit = shapes(seen, "line")
    assert boundary["x0"] == boundary["x1"] == 16.2
    assert limit["y0"] == limit["y1"] == 4.5
    texts = {a["text"] for a in seen.spec["layout"]["annotations"]}
    assert texts == {"16.05 held", "16.3 missed", "boundary 16.2", "limit 4.5 s"}
    assert low < 16.05
    assert high > 18.0


def test_where_nothing_bounds_the_rate_nothing_is_drawn_as_if_it_did() -> None:
    seen = view(searched(probes=(asked(15.75, 1004.0, full=False),), bracket=(None, None, 0.0)))
    assert shapes(seen, "rect") == []
    assert [s["y0"] for s in shapes(seen, "line")] == [4.5]
    axis = seen.spec["layout"]["yaxis"]
    assert axis["type"] == "log"
    assert axis["range"][0] < math.log10(4.5) < math.log10(1004.0) < axis["range"][1]


def test_tpot_is_drawn_where_a_run_of_full_length_is_nearer_to_its_limit() -> None:
    assert "yaxis2" not in view(searched()).spec["layout"]
    seen = view(TPOT_BINDS)
    assert seen.spec["layout"]["yaxis2"]["title"]["text"] == "p99 TPOT, ms"
    assert [s["y0"] for s in shapes(seen, "line") if s["y0"] == s["y1"]] == [4.5, 80.0]
    assert len(shapes(seen, "rect")) == 4
    assert seen.height_px > view(searched()).height_px


def test_lifted_limits_and_probes_without_an_answer_are_drawn_as_far_as_they_go() -> None:
    lifted = Slo(ttft_p99_s=None, tpot_p99_s=None)
    assert marks(view(searched(), lifted)).keys() == marks(view(searched())).keys()
    silent = asked(16.0, 4.0, valid=False, feasible=False, reason="no answer").model_copy(
        update={"ttft_s": None, "tpot_s": None}
    )
    seen = view(searched(probes=(silent, asked(15.0, 4.0)), bracket=(15.0, None, 15.2)))
    assert list(marks(seen)) == ["full length, held"]


def test_lines_join_whole_probes_of_one_length_by_rate() -> None:
    lines = [t["x"] for t in view(searched()).spec["data"] if t["mode"] == "lines"]
    assert lines == [[16.4, 18.0], [16.05, 16.3]]


def test_the_hover_tells_every_figure_and_hostile_reasons_stay_text() -> None:
    outcome = searched(
        probes=(asked(16.3, 4.62, reason="<b>late</b> & lost"), asked(16.05, 4.31, spread=spread(4, 4.3)))
    )
    seen = marks(view(outcome))
    assert seen["full length, held"]["hovertext"] == [
        "<b>Probe 2 of 2, full length: held</b><br>16.05 queries/s, 16.05 completed; 16,626 queries<br>"
        "p99 TTFT 4.31 s of 4.50 s (96 %), 4.00 s to 4.90 s over orders<br>"
        "p99 TPOT 59.0 ms of 80.0 ms (74 %), 59.0 ms to 61.0 ms over orders<br>"
        "SLO held in 4 of 5 orders of prompt lengths"
    ]
    assert seen["full length, missed"]["hovertext"][0].endswith("&lt;b&gt;late&lt;/b&gt; &amp; lost")
