"""What a search that learns the rack believes, as it goes on record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import ndtri

from tune.core.arrays import FloatArray
from tune.records.posterior_summary import (
    HypothesisPosterior,
    Interval,
    ParameterPosterior,
    PosteriorSummary,
    TrialPosterior,
)
from tune.spec.cluster import Calibration
from tune.surrogate.discrepancy import AMPLITUDE, NUGGET, ROUGH
from tune.surrogate.optimizer import Observation, Prediction, SurrogateOptimizer
from tune.surrogate.prior import ROUTERS, ParameterSamples

_EQUALLY_PROBABLE = ndtri((np.arange(16) + 0.5) / 16)
"""Of a standard normal."""


def credible_interval(values: FloatArray) -> Interval:
    """Of equally probable `values` (n,)."""
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return Interval(low=low, median=median, high=high)


def expected_capacity_qps(view: Prediction, index: int) -> Interval:
    """The boundary that is expected of one configuration; racks and the error of the simulator are in it."""
    steps = _EQUALLY_PROBABLE[:, None] * view.sd[:, index]
    return credible_interval(np.exp(view.ln_mean[:, index] + steps).ravel())


def summarise_posterior(
    search: SurrogateOptimizer,
    view: Prediction,
    seen: Sequence[Observation],
    trials: Sequence[tuple[str, int, Observation]],
) -> PosteriorSummary:
    """The record of `view`, after `seen`; `trials` are those measured, by trial_id and number."""
    told = [one for one in trials if one[2].status == "measured"]
    gain = search.gains(view, seen)
    return PosteriorSummary(
        schema=2,
        trials_told=len(seen),
        parameters=_parameters(search, view.racks),
        hypotheses=_hypotheses(search, view.racks),
        trials=tuple(_trials(view, told)),
        expected_gain_frac=float(gain.max(initial=0.0)),
        calibration=_calibration(search, view.racks),
    )


def _parameters(search: SurrogateOptimizer, racks: ParameterSamples) -> tuple[ParameterPosterior, ...]:
    before, now = search.space.factors(search.before), search.space.factors(racks)
    return tuple(
        ParameterPosterior(
            name=name, before=credible_interval(before[name]), now=credible_interval(now[name])
        )
        for name in search.space.names
    )


def _hypotheses(search: SurrogateOptimizer, racks: ParameterSamples) -> tuple[HypothesisPosterior, ...]:
    found = []
    for one in search.space.alternatives:
        shares = np.bincount(search.space.index(racks, one.name), minlength=len(one.values)) / len(racks)
        for value, before, now in zip(one.values, one.probability, shares.tolist(), strict=True):
            said = ROUTERS[int(value)] if one.name == "router" else f"{value:g}"
            found.append(
                HypothesisPosterior(name=f"{one.name}={said}", prior_frac=before, posterior_frac=now)
            )
    return tuple(found)


def _trials(view: Prediction, told: Sequence[tuple[str, int, Observation]]) -> Iterator[TrialPosterior]:
    said = view.ln_simulated[:, [one.index for _, _, one in told]]
    low, median, high = np.exp(np.quantile(said, [0.05, 0.5, 0.95], axis=0))
    spread = np.sqrt(said.var(0) + AMPLITUDE**2 + ROUGH**2 + NUGGET**2)
    for at, (trial_id, number, one) in enumerate(told):
        off = np.log(max(one.qps, 1e-3) / median[at])
        yield TrialPosterior(
            trial_id=trial_id,
            number=number,
            measured_qps=one.qps,
            simulated_qps=Interval(low=low[at], median=median[at], high=high[at]),
            off_sd=float(off / spread[at]),
            expected_capacity_qps=float(view.expected_capacity_qps[one.index]),
        )


def _calibration(search: SurrogateOptimizer, racks: ParameterSamples) -> dict[str, float]:
    """The most probable hypotheses together, and medians of the figures of the racks that have them."""
    kinds, counts = np.unique(racks.choice, axis=0, return_counts=True)
    likely = racks[np.flatnonzero((racks.choice == kinds[counts.argmax()]).all(1))]
    factors = search.space.factors(likely)
    found = {
        name: getattr(search.calibration, name) * float(np.median(factors[name]))
        for name in search.space.names
        if name in Calibration.model_fields
    }
    switched = {
        one.name: float(search.space.value(likely, one.name)[0])
        for one in search.space.alternatives
        if one.name in Calibration.model_fields
    }
    return found | switched
