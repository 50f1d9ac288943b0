"""The search that learns the rack, on a small space."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from tune.capacity.search import BEATEN_FRAC
from tune.surrogate.acquisition import early_stop_threshold_qps
from tune.surrogate.emulator import log_capacity
from tune.surrogate.gaussian_process import gp_expected_improvement
from tune.surrogate.optimizer import DOUBTED_GAIN_FRAC, Observation, SurrogateOptimizer
from tune.surrogate.prior import ParameterSamples
from tune.surrogate.summary import credible_interval, expected_capacity_qps, summarise_posterior

SLOW = 1.3


def hidden_rack(search: SurrogateOptimizer, factors: Mapping[str, float]) -> ParameterSamples:
    """One whose figures differ by `factors` from what the calibration says."""
    normal = np.zeros((1, len(search.space.names)))
    for name, factor in factors.items():
        normal[0, search.space.names.index(name)] = np.log(factor) / search.space.spread[name]
    return ParameterSamples(normal, np.zeros((1, len(search.space.alternatives)), int))


SLOW_PREFILL = {"prefill_scale": SLOW}


def truth(search: SurrogateOptimizer) -> list[float]:
    """Boundaries of the hidden rack whose prefill is slow."""
    return [one.qps for one in measured(search)]


def measured(search: SurrogateOptimizer, factors: Mapping[str, float] = SLOW_PREFILL) -> list[Observation]:
    """What each configuration comes to on the hidden rack, with what its pools could do alone."""
    ln_alone = search.emulator.log_pool_capacity(hidden_rack(search, factors), np.arange(len(search.specs)))[
        :, 0
    ]
    alone, boundaries = np.exp(ln_alone).T.tolist(), np.exp(log_capacity(ln_alone)).tolist()
    return [Observation(at, "measured", qps, *alone[at]) for at, qps in enumerate(boundaries)]


def play(search: SurrogateOptimizer, deployments: int) -> list[Observation]:
    known = measured(search)
    seen = [known[0]]
    while len(seen) < deployments:
        proposed = search.propose(seen)
        assert proposed
        seen.append(known[proposed.index])
    return seen


def test_it_finds_the_best_and_learns_what_is_slow(search: SurrogateOptimizer) -> None:
    known, seen = truth(search), play(search, 6)
    assert max(one.qps for one in seen) >= 0.99 * max(known)
    view = search.view(seen)
    slower = credible_interval(search.space.factors(view.racks)["prefill_scale"])
    before = credible_interval(search.space.factors(search.before)["prefill_scale"])
    assert slower.low < SLOW < slower.high
    assert slower.high / slower.low < 0.7 * before.high / before.low
    assert view.expected_capacity_qps == pytest.approx(known, rel=0.12)


def test_what_each_pool_could_do_alone_tells_more_than_which_is_the_lower(search: SurrogateOptimizer) -> None:
    known = truth(search)
    without = search.view([Observation(0, "measured", known[0])])
    told = search.view(measured(search)[:1])
    widths = [
        np.log(of.high / of.low)
        for of in (
            credible_interval(search.space.factors(view.racks)["decode_scale"]) for view in (without, told)
        )
    ]
    assert widths[1] < 0.95 * widths[0], "prefill binds: of decode its boundary says little"
    off = [np.abs(np.log(view.expected_capacity_qps / known)).mean() for view in (without, told)]
    assert off[1] < 0.7 * off[0]


def test_what_comes_to_less_than_others_should_needs_no_exact_answer(search: SurrogateOptimizer) -> None:
    """Nothing was known of the slow network: the first that meets it is given up, the best is not."""
    known = measured(search, {"kv_transfer_bytes_per_s": 0.05})
    best, seen = max(known, key=lambda one: one.qps), [known[0]]
    while best not in seen:
        proposed = search.propose(seen)
        assert proposed
        told = known[proposed.index]
        given_up = told.qps < (1 - BEATEN_FRAC) * proposed.early_stop_below_qps
        seen.append(replace(told, status="forecast") if given_up else told)
    assert [one.status for one in seen] == ["measured", "forecast", "measured"]


def test_others_that_may_crash_are_expected_to_come_to_less(search: SurrogateOptimizer) -> None:
    crashed = (3, 4)
    seen = [measured(search)[0], *(Observation(at, "crashed") for at in crashed)]
    proposed = search.propose(seen)
    assert proposed
    known = (0, *crashed, proposed.index)
    view, others = proposed.view, [at for at in range(len(search.specs)) if at not in known]
    of_those_that_run = early_stop_threshold_qps(
        view.ln_mean[:, proposed.index], view.sd[:, proposed.index], view.qps[:, others]
    )
    assert 0 < proposed.early_stop_below_qps < 0.95 * of_those_that_run


def test_the_same_seen_gives_the_same_proposal_and_nothing_is_proposed_twice(
    search: SurrogateOptimizer,
) -> None:
    first, second = play(search, 5), play(search, 5)
    assert first == second
    assert len({one.index for one in first}) == 5


def test_proposals_made_at_once_differ(search: SurrogateOptimizer) -> None:
    seen = play(search, 3)
    for _ in range(3):
        proposed = search.propose(seen)
        assert proposed
        assert proposed.index not in [one.index for one in seen]
        seen.append(Observation(proposed.index, "pending"))


def test_what_runs_changes_no_belief_about_what_is_expected(search: SurrogateOptimizer) -> None:
    """Imagined as expected, trials that run leave the boundaries that are expected about where they were."""
    seen = play(search, 3)
    before, taken = search.view(seen), [one.index for one in seen]
    free = [at for at in range(len(search.specs)) if at not in taken][:3]
    proposed = search.propose([*seen, *(Observation(at, "pending") for at in free)])
    assert proposed
    off = np.log(proposed.view.expected_capacity_qps / before.expected_capacity_qps)
    assert abs(off.mean()) < 0.03


def test_nothing_is_left_when_all_are_known(search: SurrogateOptimizer) -> None:
    seen = [Observation(index, "measured", qps) for index, qps in enumerate(truth(search))]
    assert search.propose(seen) is None
    assert search.gains(search.view(seen), seen).max() == 0


def test_where_the_racks_promise_nothing_a_search_that_knows_nothing_of_serving_goes_on(
    search: SurrogateOptimizer,
) -> None:
    """On a rack like none that is thought of: small chunks serve twice as much."""
    small = search.features[:, 1] < 0.5
    known = [
        replace(
            one,
            qps=2 * one.qps,
            prefill_capacity_qps=2 * one.prefill_capacity_qps,
            decode_capacity_qps=2 * one.decode_capacity_qps,
        )  # type: ignore[operator]
        if small[one.index]
        else one
        for one in measured(search)
    ]
    seen = [known[at] for at in (0, 3, 1, 4)]
    view, which = search.view(seen), [one.index for one in seen]
    assert search.gains(view, seen).max() < DOUBTED_GAIN_FRAC
    proposed = search.propose(seen)
    assert proposed
    ln_qps = np.log([one.qps for one in seen])
    gain = gp_expected_improvement(search.features, np.array(which), ln_qps, float(np.exp(ln_qps.max())))
    free = [at for at in range(len(known)) if at not in which]
    assert proposed.index == max(free, key=lambda at: gain[at])
    assert proposed.index != max(free, key=lambda at: view.expected_capacity_qps[at])
    assert proposed.gain_frac < DOUBTED_GAIN_FRAC, "the study may still end: that is what the racks promise"


def test_what_crashed_is_avoided_and_so_are_its_neighbours(search: SurrogateOptimizer) -> None:
    seen = play(search, 2)
    gains = search.gains(search.view(seen), seen)
    likely = int(gains.argmax())
    told = [*seen, Observation(likely, "crashed")]
    after = search.gains(search.view(told), told)
    assert after[likely] == 0
    near = np.argsort(((search.features - search.features[likely]) ** 2).sum(1))[1:4]
    untouched = [at for at in near if at not in [one.index for one in told]]
    assert all(after[at] < gains[at] for at in untouched)


def test_a_bound_and_a_forecast_tell_less_than_a_measurement(search: SurrogateOptimizer) -> None:
    seen = play(search, 2)
    view = search.view(seen)
    free = [at for at in range(len(search.specs)) if at not in [one.index for one in seen]]
    index = max(free, key=lambda at: view.expected_capacity_qps[at])
    qps = 0.8 * float(view.expected_capacity_qps[index])
    bound, forecast, measured = (
        search.view([*seen, Observation(index, status, qps)]).expected_capacity_qps[index]
        for status in ("below", "forecast", "measured")
    )
    assert qps * 0.95 < measured < forecast < view.expected_capacity_qps[index]
    assert bound < view.expected_capacity_qps[index]


def test_what_was_forecast_is_not_the_rate_to_beat(search: SurrogateOptimizer) -> None:
    seen = play(search, 2)
    free = [at for at in range(len(search.specs)) if at not in [one.index for one in seen]]
    told = [*seen, Observation(free[0], "forecast", 1.5 * max(one.qps for one in seen))]
    gains = search.gains(search.view(told), told)
    assert gains[free[0]] == 0
    assert gains.max() > 0


@pytest.fixture(scope="module")
def at_rates(search: SurrogateOptimizer) -> SurrogateOptimizer:
    """The same search where a deployment is asked one rate."""
    found = copy(search)
    found.rates_qps = np.arange(4.0, 26.0, 0.25)
    return found


def ask_rates(search: SurrogateOptimizer, runs: int) -> list[Observation]:
    known, seen = truth(search), list[Observation]()
    while len(seen) < runs:
        proposed = search.propose(seen)
        assert proposed
        assert proposed.qps in search.rates_qps  # type: ignore[operator]
        held = known[proposed.index] >= proposed.qps  # type: ignore[operator]
        seen.append(Observation(proposed.index, "above" if held else "below", proposed.qps or 0.0))
    return seen


def test_one_rate_a_run_comes_near_the_best_and_asks_for_more_than_was_held(
    at_rates: SurrogateOptimizer,
) -> None:
    seen = ask_rates(at_rates, 14)
    held = 0.0
    for one in seen:
        assert one.qps > held
        held = max(held, one.qps) if one.status == "above" else held
    assert held >= 0.93 * max(truth(at_rates))


def test_a_rate_that_was_missed_is_not_asked_again_nor_one_above(at_rates: SurrogateOptimizer) -> None:
    seen = [Observation(index, "below", 4.25) for index in range(len(at_rates.specs))]
    proposed = at_rates.propose(seen)
    assert proposed
    assert proposed.qps == 4.0
    assert at_rates.propose([*seen, Observation(0, "above", 4.0)]) is None
    assert at_rates.propose([Observation(0, "above", 25.75)]) is None, "the highest rate there is"


def test_a_rate_far_below_what_is_expected_says_next_to_nothing(at_rates: SurrogateOptimizer) -> None:
    seen = [Observation(0, "measured", truth(at_rates)[0])]
    before = at_rates.view(seen)
    after = at_rates.view([*seen, Observation(3, "above", 0.2 * float(before.expected_capacity_qps[3]))])
    assert after.sd[:, 3].mean() == pytest.approx(before.sd[:, 3].mean(), rel=0.05)


def test_a_run_that_cannot_be_trusted_teaches_nothing_and_its_rate_is_not_asked_again(
    at_rates: SurrogateOptimizer,
) -> None:
    seen = ask_rates(at_rates, 3)
    proposed = at_rates.propose(seen)
    assert proposed
    told = [*seen, Observation(proposed.index, "untrusted", proposed.qps or 0.0)]
    assert (at_rates.view(told).expected_capacity_qps == at_rates.view(seen).expected_capacity_qps).all()
    again = at_rates.propose(told)
    assert again
    assert (again.index, again.qps) != (proposed.index, proposed.qps)


def test_rates_asked_at_once_differ(at_rates: SurrogateOptimizer) -> None:
    seen = ask_rates(at_rates, 3)
    for _ in range(3):
        proposed = at_rates.propose(seen)
        assert proposed
        assert (proposed.index, proposed.qps) not in [(one.index, one.qps) for one in seen]
        seen.append(Observation(proposed.index, "pending", proposed.qps or 0.0))


def test_the_record_says_what_is_believed(search: SurrogateOptimizer) -> None:
    seen = play(search, 5)
    view = search.view(seen)
    told = [(f"t{number}", number, one) for number, one in enumerate(seen)]
    found = summarise_posterior(search, view, seen, told)
    assert found.trials_observed == 5
    assert [one.number for one in found.trials] == [0, 1, 2, 3, 4]
    assert all(abs(one.standardised_residual) < 2 for one in found.trials)
    assert found.calibration["prefill_scale"] > search.calibration.prefill_scale
    assert sum(
        one.posterior_frac for one in found.hypotheses if one.name.startswith("router=")
    ) == pytest.approx(1)
    assert found.expected_improvement_frac >= 0
    expected = expected_capacity_qps(view, seen[-1].index)
    assert expected.low < seen[-1].qps < expected.high


def test_distinct_racks_are_each_there_once_and_make_up_all(search: SurrogateOptimizer) -> None:
    racks = search.before[np.array([3, 3, 5, 3, 9, 5])]
    distinct, at = racks.distinct()
    assert len(distinct) == 3
    again = distinct[at]
    assert (again.normal == racks.normal).all()
    assert (again.choice == racks.choice).all()
