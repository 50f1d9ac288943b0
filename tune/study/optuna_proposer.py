"""Optuna as a ledger: proposals come out, outcomes go in. Beside the samplers and raw.py, nothing else knows
Optuna."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.trial import Trial, TrialState

from tune.records.outcome import Outcome
from tune.records.posterior_summary import Interval, PosteriorSummary
from tune.spec.bind import Point
from tune.spec.space import Dimension, Search
from tune.study.optuna_samplers import grid_point, make_sampler
from tune.study.optuna_space import distributions, to_point, to_raw
from tune.study.surrogate_sampler import NUMBER, SEEN, SurrogateSampler, seen_in

_CONSTRAINTS = ("counts", "ttft_p99", "tpot_p99")
"""Told for every trial in this order: samplers that model each constraint match them by position.

The second is the worst constraint on TTFT, the third the worst on TPOT and end-to-end latency.
"""


class OptunaProposer:
    """The optimizer's view of one study, in memory: it is rebuilt from the run folders at every start.

    The objective is output tokens/s per GPU, maximized, under constraints that hold when at most 0:
    ln(p99 / budget) of TTFT and TPOT, and `counts`, which is 1 where those do not say why a trial does not
    count: a broken rule, an engine that rejected the point, a run that LoadGen or the binomial bound turned
    down by a hair.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        search: Search,
        seed: int,
        learner: SurrogateSampler | None = None,
        min_gain: float = 0.0,
    ) -> None:
        """`learner`: the sampler of search=surrogate, whose proposals must gain `min_gain` at least."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._search = search
        self._seed = seed
        self._distributions = distributions(space)
        self._learner, self._min_gain = learner, min_gain
        sampler = learner or make_sampler(search, seed, 0)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._open: dict[int, Trial] = {}
        self._walked = 0

    def propose(self, number: int) -> Point | None:
        """The point to try as trial `number`, given all outcomes told; None when a grid is exhausted, or
        another trial not worth what it costs. While others run that is not judged: what they come to decides.

        The sampler is seeded anew for every number, since its random state is not stored: a resumed study
        proposes what an uninterrupted one would have.
        """
        if self._search.name == "grid":
            point = grid_point(self._space, self._walked)
            if point is not None:
                self.adopt(number, point, "grid")
            return point
        if self._learner is None:
            self._study.sampler = make_sampler(self._search, self._seed, number)
        trial = self._study.ask(self._distributions)
        if self._learner and self._learner.gain_frac < (0.0 if self._open else self._min_gain):
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        trial.set_user_attr(NUMBER, number)
        self._open[number] = trial
        return to_point(self._space, trial.params)

    def adopt(self, number: int, point: Point, source: str) -> None:
        """Enter a point that was proposed before, or that comes from elsewhere, as trial `number`."""
        self._walked += source == "grid"
        self._study.enqueue_trial(to_raw(self._space, point))
        self._open[number] = self._study.ask(self._distributions)
        self._open[number].set_user_attr(NUMBER, number)

    @property
    def expected_capacity_qps(self) -> Interval | None:
        """The boundary expected of the last point proposed; None where the search knows of none."""
        return self._learner.expected if self._learner else None

    def expect(self, trial_id: str) -> Interval | None:
        """The boundary expected of a configuration before the study began; None where the search knows of
        none."""
        return self._learner.expect(trial_id) if self._learner else None

    @property
    def early_stop_below_qps(self) -> float:
        """If the last point proposed comes to less, another is expected to do better; 0 if at no rate."""
        return self._learner.early_stop_below_qps if self._learner else 0.0

    def belief(self, trial_ids: Mapping[int, str]) -> PosteriorSummary | None:
        """What is believed of the rack; `trial_ids` by number. None where the search learns none."""
        if self._learner is None:
            return None
        return self._learner.belief(self._study, trial_ids)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Record what trial `number` came to. A failed one teaches nothing, one that was given up what was
        expected of it."""
        trial = self._open.pop(number, None)
        if trial is None:
            if self._learner:
                self._learner.hear(outcome)
            return
        if outcome.status == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr(SEEN, seen_in(outcome))
        censored = outcome.capacity_qps.censored
        constraints = (outcome.constraints.worst("ttft"), outcome.constraints.worst("tpot", "latency"))
        misses = [0.0 if censored else miss or 0.0 for miss in constraints]
        unexplained = not (outcome.feasible or censored) and max(misses) <= 0
        for key, value in zip(_CONSTRAINTS, (1.0 if unexplained else -1.0, *misses), strict=True):
            trial.set_constraint(key, value)
        self._study.tell(trial, _expected(outcome) if censored else outcome.output_tps_per_gpu or 0.0)


def _expected(outcome: Outcome) -> float:
    """Output tokens/s per GPU of a deployment at its boundary, with the answers that it gave."""
    measured, completed_qps = outcome.output_tps_per_gpu, outcome.completed_qps
    capacity_qps = outcome.capacity_qps.estimate
    return measured / completed_qps * capacity_qps if measured and completed_qps and capacity_qps else 0.0
