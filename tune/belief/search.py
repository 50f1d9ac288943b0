"""A search that learns the rack: which configuration is worth a deployment next, and what is believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from tune.belief.choice import (
    CRASH_FRAC,
    chance_to_run,
    expected_gain,
    gain_at_rates,
    lower_of_two,
    outdone_below,
)
from tune.belief.discrepancy import (
    BEYOND_SD_FRAC,
    CENSORED_SD,
    FARTHEST,
    FORECAST_SD,
    NUGGET,
    Discrepancy,
    Measured,
)
from tune.belief.emulator import Emulator, ln_boundary, ln_lower
from tune.belief.plain import plain_gain
from tune.belief.posterior import Posterior
from tune.belief.racks import Racks, RackSpace, hypotheses
from tune.results.requests import BoolArray, FloatArray, IntArray
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

_SD = {"measured": NUGGET, "forecast": FORECAST_SD, "above": CENSORED_SD, "below": CENSORED_SD}

DOUBTED_GAIN_FRAC, LEAST_TO_DOUBT = 0.0003, 3
"""Where racks that explain so many deployments promise less, who goes on all the same thinks them wrong. Our
choice, by the development racks of benchmarks/hidden_racks.py."""

RATES_LOOKED_AT = 24
"""Of each configuration about so many of a finer range; of the one chosen all. Our choice."""


@dataclass(frozen=True)
class Seen:
    """What a deployment of configuration `index` came to.

    `measured`: its boundary is `qps`; `forecast`: about, for it was given up before that was shown; `above`:
    no lower, for it held that rate; `below`: lower. `untrusted`: it ran at `qps` and shows nothing.
    `crashed`: it cannot run. `pending`: it runs, at `qps` where that is given.

    `prefill_qps`, `decode_qps`: what each pool alone could do, where a measured or forecast one showed that.
    """

    index: int
    status: Literal["measured", "forecast", "above", "below", "untrusted", "crashed", "pending"]
    qps: float = 0.0
    prefill_qps: float | None = None
    decode_qps: float | None = None


@dataclass(frozen=True, eq=False)
class View:
    """What is believed at one moment: equally probable `racks`, what they say of every configuration, without
    errors (`ln_simulated`) and with, `sd` of that; all are (racks, configurations). `ln_pools` (2, ...): with
    errors, of both pools alone."""

    racks: Racks
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
    def expected_qps(self) -> FloatArray:
        """Mean boundary of every configuration, (configurations,)."""
        found: FloatArray = self.qps.mean(0)
        return found


@dataclass(frozen=True, eq=False)
class Proposed:
    """Configuration `index`, by which share it should raise the best rate, and the `view` that says so.

    `qps`: the one rate to ask it, where rates are given. `outdone_below_qps`: if it comes to less, another is
    expected to do better, so that no more need be known of it; 0 where that is not so at any rate.
    """

    index: int
    gain_frac: float
    view: View
    qps: float | None = None
    outdone_below_qps: float = 0.0


@dataclass
class RackSearch:
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
    space: RackSpace = field(init=False)
    emulator: Emulator = field(init=False)
    _of_pool: Sequence[FloatArray] = field(init=False)
    _posterior: Posterior = field(init=False)
    _last: tuple[tuple[Seen, ...] | None, View | None] = field(init=False, default=(None, None))
    _last_gains: tuple[tuple[Seen, ...] | None, FloatArray | None] = field(init=False, default=(None, None))

    def __post_init__(self) -> None:
        prefill_tp = sorted({spec.prefill.tensor_parallel_size for spec in self.specs})
        decode_tp = sorted({spec.decode.tensor_parallel_size for spec in self.specs})
        self.space = RackSpace(
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
    def before(self) -> Racks:
        """Racks as probable as before anything was measured."""
        return self._posterior.before

    def ln_boundary(self, racks: Racks, which: IntArray) -> FloatArray:
        """What the simulator says of the configurations `which` (m,) on `racks`: (racks, m)."""
        return ln_boundary(self.emulator.ln_bounds(racks, which))

    def view(self, seen: Sequence[Seen]) -> View:
        """What is believed after `seen`; the last answer is kept, for who records what was believed asks
        again."""
        known, view = self._last
        if known != tuple(seen):
            view = self._view(seen)
            self._last = tuple(seen), view
        assert view is not None
        return view

    def _view(self, seen: Sequence[Seen]) -> View:
        told = [one for one in seen if one.status not in ("untrusted", "crashed", "pending")]
        measured = _measured(told)
        racks = self._posterior.probable(measured, self.seed)
        distinct, at = racks.distinct()
        bounds = self.emulator.ln_bounds(distinct, np.arange(len(self.specs)))
        simulated = ln_boundary(bounds)
        residual = measured.residual(bounds[..., measured.which])
        sd = np.empty((2, len(self.specs)))
        for pool, tells in enumerate(measured.tells(residual[:, at])):
            error = Discrepancy(self._of_pool[pool], measured.which[tells], measured.sd[pool, tells])
            bounds[pool] += error.mean(residual[pool][:, tells])
            sd[pool] = error.sd
        mean, of_both = lower_of_two(bounds, sd)
        return View(racks, simulated[at], bounds[:, at], (mean - ln_lower(bounds))[at], of_both[at])

    def gains(self, view: View, seen: Sequence[Seen]) -> FloatArray:
        """How much a deployment of each configuration is expected to raise the best rate, as a share, (n,).

        0 where it is known. Of one that is asked a rate it is that of the best of RATES_LOOKED_AT. `view` is
        that of `seen`.
        """
        known, gains = self._last_gains
        if known != tuple(seen) or gains is None:
            gains = self._gains(view, seen)
            self._last_gains = tuple(seen), gains
        return gains

    def _gains(self, view: View, seen: Sequence[Seen]) -> FloatArray:
        if self.rates_qps is not None:
            free = self._free_qps(seen)
            some = free[:: len(free) // RATES_LOOKED_AT + 1]
            of_rates = self._gains_at(view, seen, np.arange(len(self.specs)), some)
            highest: FloatArray = of_rates.max(1, initial=0.0)
            return highest
        expected = view.expected_qps
        best = max((expected[one.index] for one in seen if one.status == "measured"),
                   default=float(expected.min()))  # fmt: skip
        gain = expected_gain(view.ln_mean, view.sd, best) * self._chance(seen)
        gain[[one.index for one in seen]] = 0.0
        return gain

    def propose(self, seen: Sequence[Seen]) -> Proposed | None:
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
            merit = view.expected_qps
        index = int(free[merit[free].argmax()])
        outdone = self._outdone_below(view, seen, index, free[free != index])
        return Proposed(index, float(gain[index]), view, outdone_below_qps=outdone)

    def _outdone_below(self, view: View, seen: Sequence[Seen], index: int, others: IntArray) -> float:
        """Others whose neighbours crashed are expected to come to as much less as they are likelier to crash
        than those of which nothing is known."""
        runs = np.minimum(self._chance(seen)[others] / (1 - CRASH_FRAC), 1)
        return outdone_below(view.ln_mean[:, index], view.sd[:, index], view.qps[:, others] * runs)

    def _doubting(self, view: View, seen: Sequence[Seen]) -> FloatArray:
        """What each configuration is worth to who does not believe the racks of `view`, (n,)."""
        told = [one for one in seen if one.status in ("measured", "forecast", "below")]
        best_qps = max((one.qps for one in told if one.status == "measured"), default=0.0)
        if len(told) < LEAST_TO_DOUBT or not best_qps:
            return self.gains(view, seen)
        which, ln_qps = np.array([one.index for one in told]), np.log([one.qps for one in told])
        return plain_gain(self.features, which, ln_qps, best_qps) * self._chance(seen)

    def _imagined(self, pending: Seen, view: View) -> Seen:
        boundary_qps = float(view.expected_qps[pending.index])
        if self.rates_qps is None:
            ln_alone = view.ln_pools[:, :, pending.index].mean(1)
            qps = float(np.exp(ln_boundary(ln_alone)))
            return Seen(pending.index, "measured", qps, *np.exp(ln_alone).tolist())
        return Seen(pending.index, "above" if boundary_qps >= pending.qps else "below", pending.qps)

    def _propose_rate(self, view: View, seen: Sequence[Seen]) -> Proposed | None:
        """The configuration most worth a run, and its rate; None where no rate above the best may hold."""
        index = int(self.gains(view, seen).argmax())
        rates = self._free_qps(seen)
        gain = self._gains_at(view, seen, np.array([index]), rates)[0]
        if not gain.max(initial=0.0):
            return None
        return Proposed(index, float(gain.max()), view, float(rates[gain.argmax()]))

    def _free_qps(self, seen: Sequence[Seen]) -> FloatArray:
        """Rates above all that were held."""
        assert self.rates_qps is not None
        return self.rates_qps[self.rates_qps > _held_qps(seen)]

    def _gains_at(
        self, view: View, seen: Sequence[Seen], which: IntArray, rates_qps: FloatArray
    ) -> FloatArray:
        """Of the configurations `which` (m,) at each of `rates_qps` (k,): (m, k). 0 where it is known that
        the rate is missed, or showed nothing."""
        assert self.rates_qps is not None
        missed = np.full(len(self.specs), np.inf)
        for one in seen:
            if one.status in ("crashed", "below", "untrusted"):
                missed[one.index] = min(missed[one.index], one.qps)
        best = _held_qps(seen) or float(self.rates_qps[0]) / 2
        gain = gain_at_rates(view.ln_mean[:, which], view.sd[:, which], best, rates_qps)
        gain *= self._chance(seen)[which, None]
        return np.where(rates_qps < missed[which, None], gain, 0.0)

    def _chance(self, seen: Sequence[Seen]) -> FloatArray:
        """That each configuration runs, (n,)."""
        tried = np.array([one.index for one in seen], int)
        return chance_to_run(self.features, tried, np.array([one.status == "crashed" for one in seen], bool))


def _held_qps(seen: Sequence[Seen]) -> float:
    return max((one.qps for one in seen if one.status == "above"), default=0.0)


def _measured(told: Sequence[Seen]) -> Measured:
    """What pools could do alone is put as much higher or lower as makes the boundary what was measured."""
    ln_qps = np.log([max(one.qps, 1e-3) for one in told]) if told else np.zeros(0)
    status = np.array([one.status for one in told], object)
    known = np.array([bool(one.prefill_qps and one.decode_qps) for one in told], bool)
    alone = [[one.prefill_qps, one.decode_qps] for one in told if one.prefill_qps and one.decode_qps]
    ln_alone = np.log(alone).reshape(-1, 2).T
    at = np.stack([ln_qps, ln_qps])
    at[:, known] += ln_alone - ln_boundary(ln_alone)
    farthest = ln_qps + np.log(FARTHEST)
    sd = np.array([_SD[one.status] for one in told])
    return Measured(
        which=np.array([one.index for one in told], int),
        low=np.where(status == "below", -np.inf, np.minimum(at, farthest)),
        high=np.where((status == "above") | (at > farthest), np.inf, at),
        sd=np.hypot(sd, BEYOND_SD_FRAC * np.clip(at - ln_qps, 0, np.log(FARTHEST))),
        lowest=~known,
    )
