"""A search that learns the rack: which configuration is worth a deployment next, and what is believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec
from tune.surrogate.acquisition import (
    CRASH_FRAC,
    early_stop_threshold_qps,
    expected_improvement,
    feasibility_probability,
    improvement_at_rates,
    min_of_normals,
)
from tune.surrogate.discrepancy import (
    BEYOND_SD_FRAC,
    CENSORED_SD,
    CENSORING_RATIO,
    FORECAST_SD,
    NUGGET,
    Discrepancy,
    Observations,
)
from tune.surrogate.emulator import Emulator, log_capacity, log_soft_min_correction
from tune.surrogate.gaussian_process import gp_expected_improvement
from tune.surrogate.posterior import Posterior
from tune.surrogate.prior import ParameterPrior, ParameterSamples, hypotheses

_SD = {"measured": NUGGET, "forecast": FORECAST_SD, "above": CENSORED_SD, "below": CENSORED_SD}

DOUBTED_GAIN_FRAC, LEAST_TO_DOUBT = 0.0003, 3
"""Where racks that explain so many deployments promise less, who goes on all the same thinks them wrong. Our
choice, by the development racks of benchmarks/hidden_racks.py."""

RATE_GRID_POINTS = 24
"""Of each configuration about so many of a finer range; of the one chosen all. Our choice."""


@dataclass(frozen=True)
class Observation:
    """What a deployment of configuration `index` came to.

    `measured`: its boundary is `qps`; `forecast`: about, for it was given up before that was shown; `above`:
    no lower, for it held that rate; `below`: lower. `untrusted`: it ran at `qps` and shows nothing.
    `crashed`: it cannot run. `pending`: it runs, at `qps` where that is given.

    `prefill_capacity_qps`, `decode_capacity_qps`: what each pool alone could do, where a measured or forecast one showed that.
    """

    index: int
    status: Literal["measured", "forecast", "above", "below", "untrusted", "crashed", "pending"]
    qps: float = 0.0
    prefill_capacity_qps: float | None = None
    decode_capacity_qps: float | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is believed at one moment: equally probable `racks`, what they say of every configuration, without
    errors (`ln_simulated`) and with, `sd` of that; all are (racks, configurations). `ln_pools` (2, ...): with
    errors, of both pools alone."""

    racks: ParameterSamples
    ln_simulated: FloatArray
    ln_pools: FloatArray
    ln_mean: FloatArray
    sd: FloatArray

    @cached_property
    def qps(self) -> FloatArray:
        """Mean boundary of every configuration on each rack, (racks, configurations)."""
        found: FloatArray = np.exp(self.ln_mean + self.sd**2 / 2)
        return found

    @cached_property
    def expected_capacity_qps(self) -> FloatArray:
        """Mean boundary of every configuration, (configurations,)."""
        found: FloatArray = self.qps.mean(0)
        return found


@dataclass(frozen=True, eq=False)
class Suggestion:
    """Configuration `index`, by which share it should raise the best rate, and the `view` that says so.

    `qps`: the one rate to ask it, where rates are given. `early_stop_below_qps`: if it comes to less, another is
    expected to do better, so that no more need be known of it; 0 where that is not so at any rate.
    """

    index: int
    gain_frac: float
    view: Prediction
    qps: float | None = None
    early_stop_below_qps: float = 0.0


@dataclass
class SurrogateOptimizer:
    """Configurations `specs`, whose settings are `features` (n, settings) from 0 to 1, on an unknown rack.

    `matters` (2, settings): which settings may change what the prefill pool does, and what the decode pool.
    `structural`: whether hypotheses other than those of the configuration and the calibration are thought of.
    `rates_qps`: in rising order, the rates of which a deployment is asked one; None where it is asked for its
    boundary. Same arguments and same `seen` give the same answers.
    """

    specs: Sequence[TrialSpec]
    features: FloatArray
    matters: BoolArray
    calibration: Calibration
    seed: int
    structural: bool = True
    progress: Callable[[], None] = lambda: None
    rates_qps: FloatArray | None = None
    space: ParameterPrior = field(init=False)
    emulator: Emulator = field(init=False)
    _of_pool: Sequence[FloatArray] = field(init=False)
    _posterior: Posterior = field(init=False)
    _last: tuple[tuple[Observation, ...] | None, Prediction | None] = field(init=False, default=(None, None))
    _last_gains: tuple[tuple[Observation, ...] | None, FloatArray | None] = field(
        init=False, default=(None, None)
    )

    def __post_init__(self) -> None:
        prefill_tp = sorted({spec.prefill.tensor_parallel for spec in self.specs})
        decode_tp = sorted({spec.decode.tensor_parallel for spec in self.specs})
        self.space = ParameterPrior(
            prefill_tp, decode_tp, hypotheses(self.specs[0], self.calibration, self.structural)
        )
        self.emulator = Emulator(self.specs, self.calibration, self.space, self.progress)
        self._of_pool = [self.features[:, some] for some in self.matters]
        self._posterior = Posterior(self.space, self.emulator, self._of_pool, self.seed)

    def reseed(self, seed: int) -> None:
        """Begin anew with other draws; what was simulated stays."""
        self.seed = seed
        self._posterior = Posterior(self.space, self.emulator, self._of_pool, seed)
        self._last = self._last_gains = (None, None)

    @property
    def before(self) -> ParameterSamples:
        """Racks as probable as before anything was measured."""
        return self._posterior.before

    def log_capacity(self, racks: ParameterSamples, which: IntArray) -> FloatArray:
        """What the simulator says of the configurations `which` (m,) on `racks`: (racks, m)."""
        return log_capacity(self.emulator.log_pool_capacity(racks, which))

    def view(self, seen: Sequence[Observation]) -> Prediction:
        """What is believed after `seen`; the last answer is kept, for who records what was believed asks
        again."""
        known, view = self._last
        if known != tuple(seen):
            view = self._view(seen)
            self._last = tuple(seen), view
        assert view is not None
        return view

    def _view(self, seen: Sequence[Observation]) -> Prediction:
        told = [one for one in seen if one.status not in ("untrusted", "crashed", "pending")]
        measured = _measured(told)
        racks = self._posterior.probable(measured, self.seed)
        distinct, at = racks.distinct()
        bounds = self.emulator.log_pool_capacity(distinct, np.arange(len(self.specs)))
        simulated = log_capacity(bounds)
        residual = measured.residual(bounds[..., measured.which])
        sd = np.empty((2, len(self.specs)))
        for pool, tells in enumerate(measured.tells(residual[:, at])):
            error = Discrepancy(self._of_pool[pool], measured.which[tells], measured.sd[pool, tells])
            bounds[pool] += error.mean(residual[pool][:, tells])
            sd[pool] = error.sd
        mean, of_both = min_of_normals(bounds, sd)
        return Prediction(
            racks, simulated[at], bounds[:, at], (mean - log_soft_min_correction(bounds))[at], of_both[at]
        )

    def gains(self, view: Prediction, seen: Sequence[Observation]) -> FloatArray:
        """How much a deployment of each configuration is expected to raise the best rate, as a share, (n,).

        0 where it is known. Of one that is asked a rate it is that of the best of RATE_GRID_POINTS. `view` is
        that of `seen`.
        """
        known, gains = self._last_gains
        if known != tuple(seen) or gains is None:
            gains = self._gains(view, seen)
            self._last_gains = tuple(seen), gains
        return gains

    def _gains(self, view: Prediction, seen: Sequence[Observation]) -> FloatArray:
        if self.rates_qps is not None:
            free = self._free_qps(seen)
            some = free[:: len(free) // RATE_GRID_POINTS + 1]
            of_rates = self._gains_at(view, seen, np.arange(len(self.specs)), some)
            highest: FloatArray = of_rates.max(1, initial=0.0)
            return highest
        expected = view.expected_capacity_qps
        best = max((expected[one.index] for one in seen if one.status == "measured"),
                   default=float(expected.min()))  # fmt: skip
        gain = expected_improvement(view.ln_mean, view.sd, best) * self._chance(seen)
        gain[[one.index for one in seen]] = 0.0
        return gain

    def propose(self, seen: Sequence[Observation]) -> Suggestion | None:
        """The configuration most worth a deployment; None when all are known or run.

        Those that run are thought to come to what is expected of them.
        """
        view = self.view(seen)
        pending = [one for one in seen if one.status == "pending"]
        if pending:
            imagined = [self._imagined(one, view) for one in pending]
            seen = [*(one for one in seen if one.status != "pending"), *imagined]
            view = self.view(seen)
        if self.rates_qps is not None:
            return self._propose_rate(view, seen)
        free = np.setdiff1d(np.arange(len(self.specs)), [one.index for one in seen])
        if not len(free):
            return None
        gain = self.gains(view, seen)
        merit = gain if gain[free].max() > DOUBTED_GAIN_FRAC else self._doubting(view, seen)
        if not merit[free].max() > 0:
            merit = view.expected_capacity_qps
        index = int(free[merit[free].argmax()])
        outdone = self._outdone_below(view, seen, index, free[free != index])
        return Suggestion(index, float(gain[index]), view, early_stop_below_qps=outdone)

    def _outdone_below(
        self, view: Prediction, seen: Sequence[Observation], index: int, others: IntArray
    ) -> float:
        """Others whose neighbours crashed are expected to come to as much less as they are likelier to crash
        than those of which nothing is known."""
        runs = np.minimum(self._chance(seen)[others] / (1 - CRASH_FRAC), 1)
        return early_stop_threshold_qps(view.ln_mean[:, index], view.sd[:, index], view.qps[:, others] * runs)

    def _doubting(self, view: Prediction, seen: Sequence[Observation]) -> FloatArray:
        """What each configuration is worth to who does not believe the racks of `view`, (n,)."""
        told = [one for one in seen if one.status in ("measured", "forecast", "below")]
        best_qps = max((one.qps for one in told if one.status == "measured"), default=0.0)
        if len(told) < LEAST_TO_DOUBT or not best_qps:
            return self.gains(view, seen)
        which, ln_qps = np.array([one.index for one in told]), np.log([one.qps for one in told])
        return gp_expected_improvement(self.features, which, ln_qps, best_qps) * self._chance(seen)

    def _imagined(self, pending: Observation, view: Prediction) -> Observation:
        capacity_qps = float(view.expected_capacity_qps[pending.index])
        if self.rates_qps is None:
            ln_alone = view.ln_pools[:, :, pending.index].mean(1)
            qps = float(np.exp(log_capacity(ln_alone)))
            return Observation(pending.index, "measured", qps, *np.exp(ln_alone).tolist())
        return Observation(pending.index, "above" if capacity_qps >= pending.qps else "below", pending.qps)

    def _propose_rate(self, view: Prediction, seen: Sequence[Observation]) -> Suggestion | None:
        """The configuration most worth a run, and its rate; None where no rate above the best may hold."""
        index = int(self.gains(view, seen).argmax())
        rates = self._free_qps(seen)
        gain = self._gains_at(view, seen, np.array([index]), rates)[0]
        if not gain.max(initial=0.0):
            return None
        return Suggestion(index, float(gain.max()), view, float(rates[gain.argmax()]))

    def _free_qps(self, seen: Sequence[Observation]) -> FloatArray:
        """Rates above all that were held."""
        assert self.rates_qps is not None
        return self.rates_qps[self.rates_qps > _held_qps(seen)]

    def _gains_at(
        self, view: Prediction, seen: Sequence[Observation], which: IntArray, rates_qps: FloatArray
    ) -> FloatArray:
        """Of the configurations `which` (m,) at each of `rates_qps` (k,): (m, k). 0 where it is known that
        the rate is missed, or showed nothing."""
        assert self.rates_qps is not None
        missed = np.full(len(self.specs), np.inf)
        for one in seen:
            if one.status in ("crashed", "below", "untrusted"):
                missed[one.index] = min(missed[one.index], one.qps)
        best = _held_qps(seen) or float(self.rates_qps[0]) / 2
        gain = improvement_at_rates(view.ln_mean[:, which], view.sd[:, which], best, rates_qps)
        gain *= self._chance(seen)[which, None]
        return np.where(rates_qps < missed[which, None], gain, 0.0)

    def _chance(self, seen: Sequence[Observation]) -> FloatArray:
        """That each configuration runs, (n,)."""
        tried = np.array([one.index for one in seen], int)
        return feasibility_probability(
            self.features, tried, np.array([one.status == "crashed" for one in seen], bool)
        )


def _held_qps(seen: Sequence[Observation]) -> float:
    return max((one.qps for one in seen if one.status == "above"), default=0.0)


def _measured(told: Sequence[Observation]) -> Observations:
    """What pools could do alone is put as much higher or lower as makes the boundary what was measured."""
    ln_qps = np.log([max(one.qps, 1e-3) for one in told]) if told else np.zeros(0)
    status = np.array([one.status for one in told], object)
    known = np.array([bool(one.prefill_capacity_qps and one.decode_capacity_qps) for one in told], bool)
    alone = [
        [one.prefill_capacity_qps, one.decode_capacity_qps]
        for one in told
        if one.prefill_capacity_qps and one.decode_capacity_qps
    ]
    ln_alone = np.log(alone).reshape(-1, 2).T
    at = np.stack([ln_qps, ln_qps])
    at[:, known] += ln_alone - log_capacity(ln_alone)
    farthest = ln_qps + np.log(CENSORING_RATIO)
    sd = np.array([_SD[one.status] for one in told])
    return Observations(
        which=np.array([one.index for one in told], int),
        low=np.where(status == "below", -np.inf, np.minimum(at, farthest)),
        high=np.where((status == "above") | (at > farthest), np.inf, at),
        sd=np.hypot(sd, BEYOND_SD_FRAC * np.clip(at - ln_qps, 0, np.log(CENSORING_RATIO))),
        lowest=~known,
    )
