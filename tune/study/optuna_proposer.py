"""Suggest points with Optuna's samplers (`search=tpe`, `random` and `gp`)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from tune.analysis.hold_probability import judged_constraint
from tune.errors import ConfigurationError
from tune.records.outcome import Outcome
from tune.spec.bind import Point
from tune.spec.metrics import LIMITS
from tune.spec.space import Dimension, Search
from tune.study.optuna_space import distributions, to_point, to_raw
from tune.study.proposer import TrialSuggestion

_SEED_STRIDE = 1_000_003
"""Distance between the sampler seeds of two studies whose seeds differ by 1; above any trial number."""

_CONSTRAINTS = ("counts", "ttft_p99", "tpot_p99")
"""Names of the constraints of every trial, in order: samplers match them by position.

The second is the worst constraint on TTFT and what else ends with prefill, the third the worst on all others.
"""

_PREFILL_LIMITS = frozenset(limit for limit in LIMITS if limit.latency.spent_in == "prefill")
_OTHER_LIMITS = frozenset(LIMITS) - _PREFILL_LIMITS

SMALL_MISS = 0.01
"""Violation of a valid run with every p99 within its limit and a few late requests too many. It is less than
that of a run clearly over a limit. Chosen here."""


class _TpeOfOneSpace(optuna.samplers.TPESampler):
    """Sample the dimensions that all trials of a study share.

    The parent finds them by a comparison of all trials, again for every suggestion, as each has a sampler of
    its own.
    """

    space: Mapping[str, BaseDistribution]

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the dimensions by name, without those of one value."""
        return {name: each for name, each in sorted(self.space.items()) if not each.single()}


class OptunaProposer:
    """Wrap one Optuna study in memory, with a sampler that is seeded anew for every trial.

    The objective is output tokens/s per GPU, maximized. Constraints hold when at most 0: ln(p99 / budget) of
    TTFT and TPOT in the worst known shuffle, and `counts`, which is positive where the first two do not
    explain why a trial is infeasible: 1 for a broken rule or an engine that rejected the configuration,
    SMALL_MISS for a valid run that LoadGen or the binomial bound rejected.
    """

    def __init__(self, space: Mapping[str, Dimension], search: Search, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._search = search
        self._seed = seed
        self._distributions = distributions(space)
        self._study = optuna.create_study(direction="maximize", sampler=self._sampler(0))
        self._running: dict[int, Trial] = {}

    def suggest(self, number: int) -> TrialSuggestion:
        """Return the sampler's point for trial `number`.

        The sampler is seeded by the trial number, because its random state is not stored: a resumed study
        suggests the points of an uninterrupted one.
        """
        self._study.sampler = self._sampler(number)
        trial = self._study.ask(self._distributions)
        self._running[number] = trial
        return TrialSuggestion(to_point(self._space, trial.params))

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for trial `number` of this study."""
        return make_sampler(self._search, self._seed, number, self._distributions)

    def add_trial(self, number: int, point: Point, source: str) -> None:
        """Enter the point as a running trial of the Optuna study."""
        self._study.enqueue_trial(to_raw(self._space, point))
        self._running[number] = self._study.ask(self._distributions)

    def observe(self, number: int, outcome: Outcome) -> None:
        """Record objective and constraints of trial `number`; a trial that was not entered is ignored.

        A trial that was stopped early counts with its forecast and without constraint violations: it missed
        its SLO at a rate that it was not expected to hold.
        """
        trial = self._running.pop(number, None)
        if trial is None:
            return
        if outcome.status == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
            return
        stopped_early = outcome.capacity_qps.stopped_early
        constraints = (judged_constraint(outcome, limits) for limits in (_PREFILL_LIMITS, _OTHER_LIMITS))
        misses = [0.0 if stopped_early else miss or 0.0 for miss in constraints]
        unexplained = not (outcome.feasible or stopped_early) and max(misses) <= 0
        counts = (SMALL_MISS if outcome.valid else 1.0) if unexplained else -1.0
        for key, value in zip(_CONSTRAINTS, (counts, *misses), strict=True):
            trial.set_constraint(key, value)
        self._study.tell(
            trial, _forecast_tps_per_gpu(outcome) if stopped_early else outcome.output_tps_per_gpu or 0.0
        )

    def baseline_capacity_qps(self, trial_id: str) -> None:
        """Return None: Optuna's samplers predict no capacity."""

    def summarise(self, trial_ids: Mapping[int, str]) -> None:
        """Return None: Optuna's samplers have no posterior that goes on record."""


def make_sampler(
    search: Search, seed: int, number: int, space: Mapping[str, BaseDistribution]
) -> optuna.samplers.BaseSampler:
    """Return the sampler for trial `number`, seeded by the study's seed and that number.

    Parameters
    ----------
    search
        Its `name` is "tpe", "gp" or "random"; `startup_trials` are drawn at random first.
    seed, number
        Seed of the study, and number of the trial.
    space
        The dimensions of every trial.

    Raises
    ------
    ConfigurationError
        Where `gp` is chosen and torch is not installed, or Optuna has no sampler for the name.

    Notes
    -----
    TPE: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; multivariate as Falkner
    et al., BOHB, ICML 2018.
    """
    mixed = (seed * _SEED_STRIDE + number) % 2**32
    match search.name:
        case "tpe":
            sampler = _TpeOfOneSpace(
                seed=mixed, n_startup_trials=search.startup_trials, multivariate=True, constant_liar=True
            )
            sampler.space = space
            return sampler
        case "gp":
            if find_spec("torch") is None:
                raise ConfigurationError(
                    "search=gp needs torch, which is not installed: install tune with its extra 'gp', or "
                    "choose search=tpe."
                )
            return optuna.samplers.GPSampler(seed=mixed, n_startup_trials=search.startup_trials)
        case "random":
            return optuna.samplers.RandomSampler(seed=mixed)
        case _:
            raise ConfigurationError(
                f"search.name: found {search.name}, no sampler of Optuna; expected tpe, gp or random."
            )


def _forecast_tps_per_gpu(outcome: Outcome) -> float:
    """Return the output tokens/s per GPU at the forecast capacity, with the measured tokens per query."""
    measured, completed_qps = outcome.output_tps_per_gpu, outcome.completed_qps
    capacity_qps = outcome.capacity_qps.estimate
    return measured / completed_qps * capacity_qps if measured and completed_qps and capacity_qps else 0.0
