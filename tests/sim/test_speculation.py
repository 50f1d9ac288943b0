"""Test drafts of multi-token prediction: by hand, against drawn steps, and in whole simulated trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.decode_runs import WORKER
from support.sim_trials import digest, make_trial, short_trial, tabled, tpot_s

from tune.engines.check import check_simulated
from tune.errors import ConfigurationError
from tune.sim.decode_pool import linear_steps
from tune.sim.simulator import simulate_serving
from tune.sim.speculation import (
    Drafts,
    drafts_of,
    steps_of_answers,
    times_in_steps,
    worker_in_steps,
)
from tune.sim.worker_models import decode_worker
from tune.spec.draft_acceptance import PUBLISHED_ACCEPTANCE
from tune.spec.timed_rules import check_timed

DRAFTS = "decode.extra={speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 3}}"
ACCEPTANCE = "cluster.calibration.draft_acceptance"


def draws(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def test_tokens_of_a_step_by_hand() -> None:
    """One token, a second in 80 % of steps and a third in 50 %: 1, 2 or 3 tokens in 20, 30 and 50 %."""
    spec, calibration = make_trial(
        "decode.extra={speculative_config: {decoding_type: MTP, max_draft_len: 2}}", f"{ACCEPTANCE}=[0.8,0.5]"
    )
    drafts = drafts_of(spec.decode, calibration)
    assert drafts is not None
    assert drafts.mean_tokens == pytest.approx(0.2 * 1 + 0.3 * 2 + 0.5 * 3)
    assert drafts.variance == pytest.approx(0.2 * 1 + 0.3 * 4 + 0.5 * 9 - 2.3**2)
    assert drafts.most_tokens == 3


def test_published_acceptance_holds_where_none_is_set() -> None:
    spec, calibration = make_trial(DRAFTS)
    drafts = drafts_of(spec.decode, calibration)
    assert drafts is not None
    assert drafts.mean_tokens == pytest.approx(1 + sum(PUBLISHED_ACCEPTANCE))
    assert drafts.mean_tokens == pytest.approx(2.49)
    assert drafts_of(make_trial()[0].decode, calibration) is None


SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=5).map(lambda shares: sorted(shares, reverse=True))


def drafts_with(shares: list[float], spread_frac: float = 0.0) -> Drafts:
    """Return drafts of as many tokens as there are shares, by the distribution of what a step makes."""
    chances = -np.diff([1.0, *shares, 0.0])
    tokens = np.arange(1, len(shares) + 2)
    mean = float(chances @ tokens)
    return Drafts(mean, max(0.0, float(chances @ tokens**2) - mean**2), len(shares) + 1, spread_frac)


@given(
    answer=st.lists(st.integers(1, 20_000), min_size=1, max_size=50), shares=SHARES, spread=st.floats(0, 1)
)
def test_steps_are_within_what_is_possible(answer: list[int], shares: list[float], spread: float) -> None:
    tokens = np.array(answer, np.int64)
    steps = steps_of_answers(tokens, drafts_with(shares, spread), draws())
    assert (steps >= 1).all()
    assert (steps <= tokens).all()
    assert (steps * (len(shares) + 1) >= tokens).all()


def test_drafts_that_are_never_or_always_accepted() -> None:
    answer = np.array([1, 2, 7, 100, 4001])
    assert steps_of_answers(answer, drafts_with([0.0, 0.0]), draws()).tolist() == answer.tolist()
    assert steps_of_answers(answer, drafts_with([1.0, 1.0, 1.0]), draws()).tolist() == [1, 1, 2, 25, 1001]


@pytest.mark.parametrize("tokens", [20, 400])
def test_steps_have_the_mean_and_deviation_of_drawn_ones(tokens: int) -> None:
    """2,000 answers, each drawn step by step."""
    shares, random = [0.79, 0.45, 0.25], draws(1)
    chances = random.uniform(size=(2000, tokens, 1))
    made = 1 + (chances < np.array(shares)).sum(2)
    drawn = (made.cumsum(1) < tokens).sum(1) + 1
    steps = steps_of_answers(np.full(20_000, tokens), drafts_with(shares), draws(2))
    assert steps.mean() == pytest.approx(drawn.mean(), rel=0.01)
    assert steps.std() == pytest.approx(drawn.std(), rel=0.08)


def test_a_unit_of_two_tokens_by_hand() -> None:
    """Caches and bounds have half as many units as tokens, and a unit costs twice as much."""
    drafts = Drafts(2.0, 0.5, 3, 0.0)
    worker = worker_in_steps(WORKER._replace(stall_token_s=0.5), drafts)
    assert (worker.kv_tokens, worker.kv_block_tokens, worker.token_budget) == (5000, 17, 32)
    assert (worker.stall_token_s, worker.recompute_token_s, worker.recompute_pair_s) == (1.0, 0.02, 0.0004)
    assert worker.recompute_step_s == WORKER.recompute_step_s
    steps = times_in_steps(linear_steps(np.array([1.0, 1.1]), 0.25), drafts)
    assert steps.token_s.tolist() == [[0.5], [0.5]]
    assert steps.batch_s.tolist() == [[1.0], [1.1]]


def test_slots_leave_room_for_the_drafts_of_every_sequence() -> None:
    """A budget of 100 tokens holds 25 sequences with 3 draft tokens each."""
    spec, calibration = make_trial(DRAFTS, "decode.max_num_tokens=100")
    assert decode_worker(spec, calibration, 0.0)[0].slots == 25


def test_tokens_come_as_much_faster_as_a_step_makes_more(tmp_path: Path) -> None:
    """With one token a step TPOT is a step; with all of three drafts accepted it is a quarter."""
    rows = ("decode,1,4,1000,10", "decode,64,256,64000,20")
    quiet = (*tabled(tmp_path, *rows), "load.target_qps=1", "cluster.calibration.frontend_message_s=0")
    never, always = (
        np.median(tpot_s(simulate_serving(*short_trial(*quiet, DRAFTS, f"{ACCEPTANCE}={shares}"))))
        for shares in ("[0,0,0]", "[1,1,1]")
    )
    assert always == pytest.approx(never / 4, rel=0.05)


def test_answers_spread_where_the_calibration_says_so(tmp_path: Path) -> None:
    trial = (*tabled(tmp_path, drafts=3), "load.target_qps=1", DRAFTS)
    spreads = [
        tpot_s(simulate_serving(*short_trial(*trial, f"cluster.calibration.draft_spread_frac={spread}")))
        for spread in (0.0, 0.1)
    ]
    assert spreads[1].std() > 1.5 * spreads[0].std()


def test_equal_trials_give_equal_bits_and_shuffles_differ(tmp_path: Path) -> None:
    trial = (*tabled(tmp_path, drafts=3), DRAFTS)
    digests = [
        digest(simulate_serving(*short_trial(*trial, f"load.shuffle_seed={seed}"))) for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]


def test_drafts_without_a_table_are_refused(tmp_path: Path) -> None:
    (finding,) = check_timed(*make_trial(DRAFTS))
    assert finding.path == "decode.extra.speculative_config"
    assert not check_timed(*make_trial(DRAFTS, *tabled(tmp_path, drafts=3)))
    unknown = "decode.extra={speculative_config: {decoding_type: NGram}}"
    (finding,) = check_timed(*make_trial(unknown, *tabled(tmp_path, drafts=3)))
    assert finding.path == "decode.extra.speculative_config"
    assert "not simulated" in finding.why


def test_a_table_of_other_drafts_is_a_warning(tmp_path: Path) -> None:
    (warning,) = (
        finding
        for finding in check_simulated(*make_trial(DRAFTS, *tabled(tmp_path)))
        if "decode_steps" in finding.path
    )
    assert warning.severity == "warning"
    assert "0 draft tokens" in warning.found
    assert not [
        finding
        for finding in check_simulated(*make_trial(DRAFTS, *tabled(tmp_path, drafts=3)))
        if "decode_steps" in finding.path
    ]


def test_more_drafts_than_acceptances_is_an_error(tmp_path: Path) -> None:
    deep = "decode.extra={speculative_config: {decoding_type: MTP, max_draft_len: 5}}"
    findings = [
        finding
        for finding in check_simulated(*make_trial(deep, *tabled(tmp_path, drafts=3)))
        if finding.severity == "error"
    ]
    assert [finding.path for finding in findings] == ["cluster.calibration.draft_acceptance"]
    with pytest.raises(ConfigurationError, match="draft_acceptance: found 3 shares"):
        simulate_serving(*make_trial(deep, *tabled(tmp_path, drafts=3)))


@pytest.mark.parametrize("shares", ["[]", "[0.5,0.6]", "[1.1]", "[-0.1]"])
def test_shares_that_no_steps_have_are_refused(shares: str) -> None:
    with pytest.raises(ValidationError, match="draft_acceptance"):
        make_trial(f"{ACCEPTANCE}={shares}")
