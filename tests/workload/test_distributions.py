"""Test the lengths of ranges and of lognormal distributions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset, LognormalLengths, RangeLengths
from tune.workload.distributions import lognormal_parameters
from tune.workload.lengths import draw_lengths


def lognormal(**figures: Any) -> LognormalLengths:
    return LognormalLengths(kind="lognormal", **{"min_tokens": 1, "max_tokens": 10**9, **figures})


def random_range(tokens: int, ratio: float, rule: Any) -> RangeLengths:
    return RangeLengths(kind="range", tokens=tokens, range_ratio=ratio, range_rule=rule)


def drawn(lengths: LognormalLengths | RangeLengths, samples: int = 2000) -> np.ndarray[Any, Any]:
    dataset = Dataset(
        name="d",
        samples=samples,
        longest_prompt_tokens=lengths.longest_tokens,
        longest_answer_tokens=lengths.longest_tokens,
        inputs=lengths,
        outputs=lengths,
    )
    prompts, answers = draw_lengths(dataset, samples, True, 0)
    assert np.array_equal(np.sort(prompts), np.sort(answers))
    return np.sort(prompts)


@given(tokens=st.integers(1, 200_000), ratio=st.floats(0, 0.999))
def test_vllms_range_is_symmetric_and_inferencexs_ends_at_the_length(tokens: int, ratio: float) -> None:
    symmetric, below = (random_range(tokens, ratio, rule) for rule in ("vllm", "inferencex"))
    assert 1 <= symmetric.shortest_tokens <= tokens <= symmetric.longest_tokens
    assert abs(symmetric.longest_tokens - tokens * (1 + ratio)) < 1
    assert below.longest_tokens == tokens
    assert below.shortest_tokens == max(int(tokens * ratio), 1)


@pytest.mark.parametrize(
    ("tokens", "ratio", "rule", "expected"),
    [
        (1024, 0.0, "vllm", (1024, 1024)),
        (1024, 0.2, "vllm", (819, 1229)),
        (8192, 1.0, "inferencex", (8192, 8192)),
        (8192, 0.8, "inferencex", (6553, 8192)),
        (1024, 0.0, "inferencex", (1, 1024)),
    ],
)
def test_every_length_of_a_range_is_equally_frequent(
    tokens: int, ratio: float, rule: str, expected: tuple[int, int]
) -> None:
    lengths = drawn(random_range(tokens, ratio, rule), 10_000)
    assert (lengths[0], lengths[-1]) == expected
    assert lengths.mean() == pytest.approx(sum(expected) / 2, rel=1e-3)
    assert lengths.std() == pytest.approx((expected[1] - expected[0] + 1) / 12**0.5, abs=0.5)


FIGURES = st.tuples(st.floats(20, 50_000), st.floats(0.1, 1.5))


@given(
    FIGURES, st.sampled_from(["mean_tokens", "median_tokens"]), st.sampled_from(["sd_tokens", "p95_tokens"])
)
def test_a_lognormal_has_the_two_figures_that_were_stated(
    figures: tuple[float, float], centre: str, spread: str
) -> None:
    median, sigma = figures
    known = stats.lognorm(sigma, scale=median)
    stated = {
        "mean_tokens": known.mean(),
        "median_tokens": median,
        "sd_tokens": known.std(),
        "p95_tokens": known.ppf(0.95),
    }
    found = lognormal_parameters(lognormal(**{name: float(stated[name]) for name in (centre, spread)}))
    assert found == pytest.approx((np.log(median), sigma), rel=1e-6, abs=1e-6)


def test_lengths_of_a_lognormal_are_its_quantiles_within_the_range() -> None:
    lengths = drawn(lognormal(median_tokens=1200.0, p95_tokens=6000.0, min_tokens=100, max_tokens=8000))
    assert np.percentile(lengths, [50, 95]) == pytest.approx([1200, 6000], rel=0.01)
    assert (lengths[0], lengths[-1]) == (100, 8000)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"median_tokens": 100.0, "p95_tokens": 90.0}, "p95_tokens 90 lies below median_tokens 100"),
        ({"mean_tokens": 100.0, "p95_tokens": 90.0}, "expected between 100 and 387"),
        ({"mean_tokens": 100.0, "p95_tokens": 400.0}, "expected between 100 and 387"),
    ],
)
def test_figures_that_no_lognormal_has_are_refused(figures: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        drawn(lognormal(**figures))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "lognormal", "min_tokens": 1, "max_tokens": 9}, "neither mean_tokens nor median_tokens"),
        (
            {"kind": "lognormal", "mean_tokens": 5, "median_tokens": 4, "min_tokens": 1, "max_tokens": 9},
            "found mean_tokens and median_tokens",
        ),
        (
            {"kind": "lognormal", "mean_tokens": 5, "sd_tokens": 1, "min_tokens": 10, "max_tokens": 9},
            "min_tokens 10 lies above max_tokens 9",
        ),
        ({"kind": "range", "tokens": 5, "range_ratio": 1, "range_rule": "vllm"}, "range_rule=inferencex"),
        ({"kind": "zipf"}, "expected a kind of beta, normal, fixed, range, lognormal"),
    ],
)
def test_wrong_distributions_are_refused_where_they_stand(wrong: dict[str, Any], message: str) -> None:
    dataset = {
        **{"name": "d", "samples": 10, "longest_prompt_tokens": 9, "longest_answer_tokens": 9},
        **{"inputs": wrong, "outputs": wrong},
    }
    with pytest.raises(ValidationError, match=message) as caught:
        Dataset.model_validate_json(json.dumps(dataset))
    assert [error["loc"][0] for error in caught.value.errors()][:1] == ["inputs"]
