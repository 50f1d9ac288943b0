"""Test the words about the simulator's error."""

from __future__ import annotations

import pytest
from support.outcomes import measured

from tune.records.model_error import ErrorSource, ModelError
from tune.report.model_error_text import change_phrase, model_error_sentence, simulated_change

SCALE = ErrorSource(name="prefill scale", sd_frac=0.031, basis="")
STEPS = ErrorSource(name="prefill steps at TP2", sd_frac=0.045, basis="")


def simulated(tps: float, *sources: ErrorSource):
    return measured(tps=tps).model_copy(update={"model_error": ModelError(sources=sources)})


def test_the_sentence_names_every_source_the_largest_first() -> None:
    assert model_error_sentence(ModelError(sources=(SCALE, STEPS))) == (
        "The simulator's own error: a real rack may hold 9.4 % more or less (90 % interval; standard "
        "deviations: prefill steps at TP2 4.5 %, prefill scale 3.1 %)."
    )


@pytest.mark.parametrize(("tps", "where"), [(9800.0, "above"), (9200.0, "within"), (8200.0, "above")])
def test_a_change_is_compared_with_the_error_that_is_not_shared(tps: float, where: str) -> None:
    change = simulated_change(simulated(9000.0, SCALE), simulated(tps, SCALE, STEPS))
    assert change
    assert change.change_frac == pytest.approx(tps / 9000 - 1)
    assert change_phrase(change) == f"{where} the simulator's error of 7.7 % for this difference"


def test_a_measured_rack_has_no_model_error() -> None:
    assert simulated_change(measured(), simulated(9000.0, SCALE)) is None
