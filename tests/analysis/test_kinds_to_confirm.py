"""Test which kinds of configurations a confirmation measures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.outcomes import measured
from support.synthetic_posterior import interval, posterior_of

from tune.analysis.kinds_to_confirm import kinds_to_confirm
from tune.analysis.model_error_sources import covered_frac
from tune.records.model_error import ErrorSource, ModelError
from tune.records.posterior_summary import KindPosterior

BEST = measured(0)


def expected(name: str, median: float, half: float = 4.0, **changes) -> KindPosterior:
    fields = {"is_measured": False, "params": {"prefill_workers": 13}, **changes}
    figure = interval(median - half, median, median + half)
    return KindPosterior(kind=name, trial_id=name, expected_output_tps_per_gpu=figure, **fields)


@given(
    st.lists(st.floats(min_value=50.0, max_value=150.0), min_size=1, max_size=4),
    st.lists(st.floats(min_value=50.0, max_value=150.0), max_size=6),
)
def test_measured_kinds_keep_their_order_and_others_join_within_the_interval(
    held: list[float], predicted: list[float]
) -> None:
    names = [f"held {n}" for n in range(len(held))]
    measured_kinds = [
        expected(name, value, is_measured=True) for name, value in zip(names, held, strict=True)
    ]
    others = [expected(f"other {n}", value) for n, value in enumerate(sorted(predicted, reverse=True))]
    every = sorted([*measured_kinds, *others], key=lambda kind: -kind.expected_output_tps_per_gpu.median)
    order = kinds_to_confirm(posterior_of(kinds=tuple(every)), BEST, names)
    assert [name for name in order if name in names] == names
    assert order[0] == names[0]
    within = [kind.kind for kind in others if kind.expected_output_tps_per_gpu.high >= held[0] - 4.0]
    assert [name for name in order if name not in names] == within


def test_kinds_that_were_measured_or_have_no_point_are_left_out() -> None:
    kinds = (
        expected("14P4D", 100.0, is_measured=True),
        expected("13P5D", 99.0, is_measured=True),
        expected("12P6D", 98.0, params=None),
        expected("11P7D", 97.0),
    )
    assert kinds_to_confirm(posterior_of(kinds=kinds), BEST, ["14P4D"]) == ["14P4D", "11P7D"]
    assert kinds_to_confirm(None, BEST, ["14P4D"]) == ["14P4D"]


def test_the_simulators_own_error_widens_the_interval() -> None:
    posterior = posterior_of(
        kinds=(expected("14P4D", 100.0, 0.0, is_measured=True), expected("13P5D", 95.0, 0.0))
    )
    for sd_frac in (0.02, 0.04):
        error = ModelError(sources=(ErrorSource(name="prefill scale", sd_frac=sd_frac, basis="measured"),))
        simulated = BEST.model_copy(update={"model_error": error})
        assert (len(kinds_to_confirm(posterior, simulated, ["14P4D"])) == 2) == (covered_frac(sd_frac) > 0.05)
    assert kinds_to_confirm(posterior, BEST, ["14P4D"]) == ["14P4D"]
