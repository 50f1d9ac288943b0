"""Test that settings which decide the ranking score high in importance, and others low."""

from __future__ import annotations

import random
from typing import Any

import pytest
from support.synthetic_study import SPLIT_SPACE, study, synthetic_trial

from tune.records.outcome import Outcome
from tune.report.setting_importance import MIN_TRIALS, best_count, setting_importance


def trials(count: int, values: dict[str, list[Any]], seed: int = 3) -> list[Outcome]:
    """Return trials at random points of SPLIT_SPACE, of which `values` replaces the values."""
    draw = random.Random(seed)
    choices: dict[str, list[Any]] = {
        "prefill_workers": list(range(10, 18)),
        "prefill_max_num_tokens": [2048, 4096, 8192],
        "decode_cuda_graphs": ["listed", "powers_of_two", "none"],
        "target_qps": [8 + i / 2 for i in range(28)],
        **values,
    }
    points = [{name: draw.choice(options) for name, options in choices.items()} for _ in range(count)]
    return [synthetic_trial(i, provenance={"params": point}) for i, point in enumerate(points)]


def ranked(outcomes: list[Outcome], name: str, best: Any) -> dict[str, int]:
    """Return ranks by the distance of one setting from its best value."""
    distances = [abs(o.provenance["params"][name] - best) for o in outcomes]
    order = sorted(outcomes, key=lambda o: (distances[o.number], o.number))
    return {outcome.trial_id: place for place, outcome in enumerate(order, start=1)}


@pytest.mark.parametrize(("name", "best"), [("prefill_workers", 14), ("target_qps", 15.0)])
def test_setting_that_alone_decides_comes_first(name: str, best: Any) -> None:
    outcomes = trials(120, {})
    importance = setting_importance(study(), outcomes, ranked(outcomes, name, best))
    assert next(iter(importance)) == name
    assert importance[name] > 0.5
    assert sum(importance.values()) == pytest.approx(1.0)
    assert set(importance) == set(SPLIT_SPACE)


def test_setting_that_took_one_value_has_no_importance() -> None:
    outcomes = trials(60, {"prefill_max_num_tokens": [4096]})
    importance = setting_importance(study(), outcomes, ranked(outcomes, "target_qps", 15.0))
    assert set(importance) == set(SPLIT_SPACE) - {"prefill_max_num_tokens"}


def test_values_that_the_space_no_longer_has_are_accepted() -> None:
    values = {"prefill_workers": [8, 14, 20], "decode_cuda_graphs": ["steps_of_32", "none", None]}
    outcomes = trials(60, values)
    importance = setting_importance(study(), outcomes, ranked(outcomes, "prefill_workers", 14))
    assert next(iter(importance)) == "prefill_workers"


def test_few_trials_give_no_importance() -> None:
    outcomes = trials(MIN_TRIALS - 1, {})
    assert setting_importance(study(), outcomes, ranked(outcomes, "target_qps", 15.0)) == {}


def test_at_least_five_trials_count_as_the_best() -> None:
    assert [best_count(n) for n in (15, 49, 60, 200)] == [5, 5, 6, 20]
