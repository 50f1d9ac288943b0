"""Test prompt and answer lengths: the synthetic dataset, the user's CSV, and their order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.composed import composed

from tune.config import compose_overrides
from tune.errors import ConfigurationError
from tune.spec.dataset import Dataset, SyntheticInputs, SyntheticOutputs
from tune.workload.distributions import synthetic_lengths
from tune.workload.length_files import read_lengths
from tune.workload.lengths import draw_lengths, request_lengths

INPUTS = SyntheticInputs(kind="beta", mean_tokens=9400.0, sd_tokens=3800.0, min_tokens=200, max_tokens=20000)
DATASET = Dataset(
    name="d",
    samples=2000,
    longest_prompt_tokens=20010,
    longest_answer_tokens=2000,
    inputs=INPUTS,
    outputs=SyntheticOutputs(mean_tokens=629.9, cap_frac=0.006),
)


def dataset(samples: int = 2000, **changes: Any) -> Dataset:
    inputs = INPUTS.model_copy(update=changes)
    return DATASET.model_copy(update={"samples": samples, "inputs": inputs})


def answers(mean_tokens: float, cap_frac: float, samples: int = 2000) -> Dataset:
    outputs = SyntheticOutputs(mean_tokens=mean_tokens, cap_frac=cap_frac)
    return DATASET.model_copy(update={"samples": samples, "outputs": outputs})


@pytest.mark.parametrize("kind", ["beta", "normal"])
def test_inputs_have_the_stated_mean_deviation_and_range(kind: str) -> None:
    inputs, _ = draw_lengths(dataset(kind=kind), 2000, True, 0)
    assert inputs.mean() == pytest.approx(9400, rel=0.005)
    assert inputs.std() == pytest.approx(3800, rel=0.02)
    assert inputs.min() >= 200
    assert inputs.max() <= 20000


@pytest.mark.parametrize(
    ("mean", "sd", "tolerance"),
    [(9400.0, 3800.0, 1), (2000.0, 1500.0, 3), (18000.0, 500.0, 1), (10100.0, 7000.0, 20)],
)
def test_beta_quantiles_agree_with_scipy(mean: float, sd: float, tolerance: int) -> None:
    """The last distribution is U-shaped, with infinite density at both ends, where the sum is least exact."""
    inputs, _ = draw_lengths(dataset(mean_tokens=mean, sd_tokens=sd), 2000, True, 0)
    m, s = (mean - 200) / 19800, sd / 19800
    total = m * (1 - m) / s**2 - 1
    exact = 200 + 19800 * stats.beta.ppf((np.arange(2000) + 0.5) / 2000, m * total, (1 - m) * total)
    assert np.abs(np.sort(inputs) - exact).max() <= tolerance


def test_fixed_inputs_and_zero_deviation_give_one_length() -> None:
    for changes in ({"kind": "fixed"}, {"kind": "beta", "sd_tokens": 0.0}):
        inputs, _ = draw_lengths(dataset(**changes), 2000, True, 0)
        assert (inputs == 9400).all()


@given(mean=st.floats(50, 1500), cap_frac=st.floats(0, 0.02), samples=st.integers(1000, 9000))
def test_outputs_have_the_stated_mean_including_the_cap(mean: float, cap_frac: float, samples: int) -> None:
    _, outputs = draw_lengths(answers(mean, cap_frac, samples), samples, True, 0)
    assert outputs.mean() == pytest.approx(mean, abs=0.51)
    assert outputs.min() >= 1
    assert outputs.max() <= 2000
    assert (outputs == 2000).sum() >= round(cap_frac * samples)


def test_outputs_keep_the_shape_of_the_measured_answers(root: Path) -> None:
    """Compare with draws of one run a sample, from smallest..median or median..largest.

    The probability beyond either end is that of order statistics.
    """
    path = root / "tune" / "workload" / "data" / "llama3_1_405b_output_lengths.csv"
    table = np.genfromtxt(path, delimiter=",", names=True)
    draws = np.random.default_rng(1)
    one_run = []
    for row in np.repeat(table, 40):
        probability, end = draws.random(), 1 / (row["runs"] + 1)
        low, middle, high = (row[f"{name}_output_tokens"] for name in ("min", "median", "max"))
        part = (min(probability, 1 - probability) - end) / (0.5 - end)
        extreme = low if probability < 0.5 else high
        one_run.append(extreme + max(part, 0.0) * (middle - extreme))
    expected = np.array(one_run) / np.mean(one_run) * 638.0
    _, outputs = draw_lengths(answers(638.0, 0.0, 8313), 8313, True, 0)
    shares = [5, 10, 25, 50, 75, 90, 95, 99]
    assert np.percentile(outputs, shares) == pytest.approx(np.percentile(expected, shares), rel=0.02)


def test_single_runs_have_longer_answers_than_medians_show() -> None:
    """1,017 tokens are the 99th percentile of the 302 medians, whose mean is equal."""
    _, outputs = draw_lengths(answers(638.0, 0.0, 8313), 8313, True, 0)
    assert (outputs > 1017).mean() > 0.03


@given(seed=st.integers(0, 2**70), passes=st.integers(1, 3))
def test_every_pass_requests_every_sample_once(seed: int, passes: int) -> None:
    inputs, outputs = draw_lengths(dataset(200), 200 * passes, True, seed)
    pairs = [
        sorted(zip(inputs[i : i + 200], outputs[i : i + 200], strict=True))
        for i in range(0, 200 * passes, 200)
    ]
    assert all(each == pairs[0] for each in pairs)


@given(first=st.integers(0, 99), second=st.integers(100, 199))
def test_the_seed_changes_the_order_but_not_the_dataset(first: int, second: int) -> None:
    lengths, others = (draw_lengths(DATASET, 2000, True, seed) for seed in (first, second))
    for a, b in zip(lengths, others, strict=True):
        assert not np.array_equal(a, b)
        assert np.array_equal(np.sort(a), np.sort(b))


def test_a_partial_pass_is_the_beginning_of_a_whole_one() -> None:
    long, short = draw_lengths(DATASET, 2000, True, 7), draw_lengths(DATASET, 123, False, 7)
    assert np.array_equal(long[0][:123], short[0])
    assert np.array_equal(long[1][:123], short[1])


@given(queries=st.integers(1, 4999), seed=st.integers(0, 2**40))
def test_a_stratified_run_requests_one_sample_per_stratum(queries: int, seed: int) -> None:
    passes, rest = divmod(queries, 2000)
    inputs, outputs = draw_lengths(DATASET, queries, False, seed, stratified=True)
    assert len(inputs) == len(outputs) == queries
    whole = draw_lengths(DATASET, 2000, True, seed)
    pairs = Counter(zip(*(lengths.tolist() for lengths in whole), strict=True))
    requested = Counter(zip(inputs[2000 * passes :].tolist(), outputs[2000 * passes :].tolist(), strict=True))
    assert requested.total() == rest
    assert requested <= pairs
    for share in (0.25, 0.5, 0.9):
        long = np.sort(whole[0])[int(share * 2000)]
        one_group = rest / max(math.isqrt(rest), 1)
        assert abs((inputs[2000 * passes :] >= long).sum() - (1 - share) * rest) <= one_group + 2


def test_a_stratified_run_has_the_mean_lengths_of_the_dataset() -> None:
    """The means of 1,187 independent requests would deviate by 1.1 % (standard deviation)."""
    whole = draw_lengths(DATASET, 2000, True, 0)
    for seed in range(20):
        sample = draw_lengths(DATASET, 300, False, seed, stratified=True)
        for lengths, every in zip(sample, whole, strict=True):
            assert lengths.mean() == pytest.approx(every.mean(), rel=0.02)
    first, repeated, other = (
        draw_lengths(DATASET, 300, False, seed, stratified=True)[0].tolist() for seed in (7, 7, 8)
    )
    assert first == repeated != other


@given(seed=st.integers(0, 2**40))
def test_long_prompts_of_a_stratified_run_are_not_spread_evenly(seed: int) -> None:
    """Prompts spread evenly over time would make no bursts, and the SLO would hold at too high a rate."""
    inputs, _ = draw_lengths(DATASET, 1000, False, seed, stratified=True)
    correlation = float(np.corrcoef(inputs[:-1], inputs[1:])[0, 1])
    assert abs(correlation) < 0.2


def test_prompts_and_answers_are_uncorrelated() -> None:
    inputs, outputs = draw_lengths(DATASET, 2000, True, 3)
    assert abs(np.corrcoef(inputs, outputs)[0, 1]) < 0.1


def test_a_partial_pass_of_permutations_is_refused() -> None:
    with pytest.raises(ValueError, match="2001 queries are no whole number of passes over 2000 samples"):
        draw_lengths(DATASET, 2001, True, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean_tokens": 100.0}, "mean_tokens 100 lies outside min_tokens..max_tokens 200..20000"),
        ({"mean_tokens": 20001.0}, "mean_tokens 20001 lies outside"),
        ({"kind": "fixed", "mean_tokens": 1.0}, "mean_tokens 1 lies outside"),
        ({"sd_tokens": 9900.0}, r"standard deviation of 9900; set sd_tokens below 98\d\d"),
        ({"min_tokens": 20001}, "lies outside"),
    ],
)
def test_impossible_inputs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        draw_lengths(dataset(**changes), 2000, True, 0)


@pytest.mark.parametrize(("mean", "cap_frac"), [(2001.0, 0.0), (0.5, 0.0), (100.0, 0.5), (1.0, 0.01)])
def test_impossible_outputs_are_refused(mean: float, cap_frac: float) -> None:
    with pytest.raises(ConfigurationError, match="cannot come from answers of 1 to 2000 tokens"):
        draw_lengths(answers(mean, cap_frac), 2000, True, 0)


Csv = Callable[[str], Dataset]


@pytest.fixture
def csv_dataset(tmp_path: Path) -> Csv:
    def write(text: str) -> Dataset:
        path = tmp_path / "lengths.csv"
        path.write_text(text, encoding="utf-8")
        return DATASET.model_copy(update={"samples": 3, "path": str(path)})

    return write


GOOD = "input_tokens,output_tokens\n100,10\n200,20\n300,30\n"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        "id,output_tokens,input_tokens\na,10,100\nb,20,200\nc,30, 300 \n",
        "100,10\n200,20\n300,30\n",
        "100,10\n\n200,20\n\n300,30\n",
        "Timestamp,Model,Request tokens,Response tokens\n5,a,100,10\n1,b,200,20\n7,c,300,30\n",
        '{"input_length": 100, "output_length": 10}\n\n{"input_length": 200, "output_length": 20}\n'
        '{"timestamp": 3, "input_length": 300, "output_length": 30, "hash_ids": [1]}',
    ],
)
def test_a_csv_is_read_and_its_pairs_stay_together(csv_dataset: Csv, text: str) -> None:
    inputs, outputs = draw_lengths(csv_dataset(text), 6, True, 5)
    assert sorted(inputs) == [100, 100, 200, 200, 300, 300]
    assert np.array_equal(inputs, 10 * outputs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no request"),
        ("input_tokens\n1\n2\n3\n", "line 2: no column output_tokens in input_tokens; expected"),
        ("in,out\n1,2\n", "line 2: no column input_tokens or output_tokens in in, out; expected"),
        ("100,10,1\n200,20,1\n", "line 1: found 3 numbers and no header"),
        (
            GOOD.replace("200,20", "200.5,20"),
            "line 3: input_tokens is '200.5'; expected a whole number from 1",
        ),
        (GOOD.replace("200,20", "200,"), "line 3: output_tokens is ''"),
        (GOOD.replace("200,20", "200"), "line 3: found 1 cells; expected 2"),
        (GOOD.replace("200,20", "-200,20"), "line 3: input_tokens is '-200'"),
        (GOOD.replace("200,20", "0,20"), "line 3: input_tokens is '0'"),
        (GOOD.replace("200,20", "200,0"), "line 3: output_tokens is '0'"),
        (GOOD.replace("200,20", "nan,20"), "line 3: input_tokens is 'nan'"),
        (GOOD.replace("200,20", "1e3,20"), "line 3: input_tokens is '1e3'"),
        (
            GOOD.replace("300,30", "20011,30"),
            r"line 4: input_tokens is 20011; expected 1 to 20010 \(load.dataset.longest_prompt_tokens\)",
        ),
        (
            GOOD.replace("300,30", "300,2001"),
            "line 4: output_tokens is 2001; expected 1 to 2000.*Set load.dataset.longest_answer_tokens=2001",
        ),
        (GOOD.replace("300,30", "9" * 5000 + ",30"), "line 4: input_tokens is '9999"),
        (GOOD + "400,40\n", "4 rows, but load.dataset.samples is 3; set load.dataset.samples=4"),
        ("input_tokens,output_tokens\n", "holds no request"),
    ],
)
def test_a_bad_csv_is_refused(csv_dataset: Csv, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        draw_lengths(csv_dataset(text), 3, True, 0)


def test_missing_files_folders_and_binary_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00input_tokens")
    for path in (tmp_path / "absent.csv", tmp_path, binary):
        with pytest.raises(ConfigurationError, match=r"load\.dataset\.path: .*cannot be read"):
            read_lengths(path, DATASET)


def test_the_lengths_of_deepseek_r1_have_the_mean_of_the_reference() -> None:
    load = composed("load=mlperf_deepseek_r1").load
    assert load.dataset.path == "shipped:mlperf_deepseek_r1.csv"  # no path of one machine in a trial
    inputs, outputs = request_lengths(load, 4388)
    assert outputs.mean() == pytest.approx(3886.2274, abs=5e-5)  # tokens a sample, as MLCommons states them
    assert (len(inputs), inputs.max(), outputs.max()) == (4388, 3140, 20000)


def test_a_file_that_does_not_come_with_tune_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"expected shipped:mlperf_deepseek_r1\.csv"):
        compose_overrides(("load=mlperf_deepseek_r1", "load.dataset.path=shipped:../README.md"))


def test_the_measured_prompts_come_with_answers_of_the_rank_of_their_reference() -> None:
    measured = composed("load=mlperf_llama3_1_405b").load
    inputs, outputs = request_lengths(measured, 8313)
    assert (inputs.min(), inputs.max()) == (476, 19988)
    assert inputs.mean() == pytest.approx(9428.6447, abs=5e-5)
    assert outputs.mean() == pytest.approx(629.9, abs=0.01)
    assert np.corrcoef(inputs, outputs)[0, 1] == pytest.approx(-0.0958, abs=5e-5)
    again, _ = request_lengths(measured.model_copy(update={"shuffle_seed": 1}), 8313)
    assert not np.array_equal(inputs, again)
    assert np.array_equal(np.sort(inputs), np.sort(again))


@settings(max_examples=20)
@given(samples=st.integers(1, 20_000))
def test_any_number_of_measured_samples_keeps_the_pairs(samples: int) -> None:
    base = composed("load=mlperf_llama3_1_405b").load.dataset
    inputs, outputs = synthetic_lengths(base.model_copy(update={"samples": samples}))
    assert len(inputs) == len(outputs) == samples
    assert inputs.max() <= 19988
    assert samples < 4000 or np.corrcoef(inputs, outputs)[0, 1] < -0.05
