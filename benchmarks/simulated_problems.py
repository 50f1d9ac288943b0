"""Draw problems on the simulated rack, and look for the best configuration with the simulator alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tune.analysis.slo import late_requests
from tune.config import compose_overrides
from tune.loadgen.early_stopping import late_allowed
from tune.sim.simulator import simulate_serving
from tune.spec.bind import Point
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.study.candidate_space import CandidateSpace
from tune.study.candidates import candidates

QUERIES, DURATION_S = 1000, 300
SAMPLED, CLIMBS = 600, 3
TOLERANCE, LOWEST_QPS, HIGHEST_QPS = 1.004, 0.05, 500.0

DIMENSIONS = (
    "prefill_tensor_parallel_size",
    "decode_tensor_parallel_size",
    "head",
    "prefill_max_num_tokens",
    "prefill_max_batch_size",
    "prefill_chunking_policy",
    "decode_max_batch_size",
    "decode_capacity_policy",
    "decode_cuda_graphs",
    "decode_overlap_off",
)
"""Dimensions of sweeps/everything.yaml that a problem may lack; the number of prefill workers is in all."""


@dataclass(frozen=True)
class Problem:
    """Hold the settings of a problem, with its calibration."""

    number: int
    settings: Settings
    calibration: Calibration

    @property
    def label(self) -> str:
        """Return hardware, model, lengths, limits and the number of dimensions."""
        spec, sweep = self.settings.trial_spec, self.settings.sweep
        assert sweep
        data = spec.load.dataset
        return (
            f"{spec.hardware.name} {spec.model.name} {data.inputs.mean_tokens:.0f}/"
            f"{data.outputs.mean_tokens:.0f} tokens, {spec.slo.ttft_p99_s:.2f} s, "
            f"{1000 * (spec.slo.tpot_p99_s or 0):.0f} ms, {len(sweep.space)} dimensions"
        )


def draw_problem(number: int) -> Problem:
    """Draw the problem `number`."""
    draws = np.random.default_rng([2026, number])
    count = int(draws.integers(2, len(DIMENSIONS) + 1))
    kept = draws.choice(DIMENSIONS, count, replace=False)
    model = draws.choice(["llama3_1_405b_fp4", "llama3_1_405b_fp4", "llama3_1_70b_fp4"])
    mean_tokens = float(np.exp(draws.uniform(np.log(2500), np.log(11000))))
    words = [
        "+sweep=everything",
        "load.mode=capacity",
        f"hardware={draws.choice(['gb200_nvl72', 'gb300_nvl72'])}",
        f"model={model}",
        f"slo.ttft_p99_s={draws.uniform(2.0, 6.0):.2f}",
        f"slo.tpot_p99_s={draws.uniform(0.04, 0.15):.3f}",
        f"load.dataset.inputs.mean_tokens={mean_tokens:.0f}",
        f"load.dataset.inputs.sd_tokens={mean_tokens * draws.uniform(0.2, 0.5):.0f}",
        f"load.dataset.outputs.mean_tokens={draws.uniform(200, 900):.0f}",
        f"load.dataset.samples={QUERIES}",
        f"load.min_queries={QUERIES}",
        f"load.min_duration_s={DURATION_S}",
        *(f"~sweep.space.{name}" for name in DIMENSIONS if name not in kept),
    ]
    settings = compose_overrides(words).settings
    assert settings.cluster.calibration
    return Problem(number, settings, settings.cluster.calibration)


def holds(problem: Problem, spec: TrialSpec, qps: float, pool: Role | None = None) -> bool:
    """Return whether a run of `spec` at `qps` holds the SLO, with both pools or one alone."""
    log = simulate_serving(spec.model_copy(update={"load": spec.load.at(qps)}), problem.calibration, pool)
    return max(int(late.sum()) for late in late_requests(log, spec.slo)) <= late_allowed(len(log))


def highest_rate(passes: Callable[[float], bool], guess: float) -> float:
    """Return the highest rate that passes, to TOLERANCE; 0 where none does."""
    low = high = guess
    stride = 1.05
    while not passes(low):
        if low <= LOWEST_QPS:
            return 0.0
        low, high, stride = max(low / stride, LOWEST_QPS), low, stride**1.5
    while high == low or (high < HIGHEST_QPS and passes(high)):
        low, high, stride = high, high * stride, stride**1.5
    while high / low > TOLERANCE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if passes(middle) else (low, middle)
    return low


class Climb:
    """Look for the highest capacity of a problem, from points of its space to their best neighbours."""

    def __init__(self, problem: Problem) -> None:
        """Begin with the points that a seed of the problem's own draws; none has been tried."""
        settings = problem.settings
        assert settings.sweep
        first = candidates(settings.trial_spec, settings.sweep, 10_000 + problem.number)
        self._problem, self._specs = problem, list(first.specs)
        self.space = CandidateSpace(settings.trial_spec, settings.sweep, first, 0)
        self.tried: set[int] = set()
        self.best: list[tuple[float, int]] = [(0.0, 0)]

    def try_all(self, indices: Iterable[int]) -> None:
        """Try what was not tried, and note each whose capacity is the highest so far."""
        for index in indices:
            if index in self.tried:
                continue
            self.tried.add(index)
            qps, spec = self.best[-1][0], self._specs[index]
            if holds(self._problem, spec, max(qps * TOLERANCE, 1.0)):
                qps = highest_rate(lambda rate, spec=spec: holds(self._problem, spec, rate), max(qps, 1.0))  # type: ignore[misc]
                self.best.append((qps, index))

    def climb_from(self, qps: float, index: int) -> None:
        """Move from the configuration `index`, of capacity `qps`, to its best neighbour, again and again."""
        self.best.append((qps, index))
        at = None
        while at != self.best[-1]:
            at = self.best[-1]
            found, new, _ = self.space.neighbours([at[1]])
            self._specs += new
            self.try_all(found)

    def index_of(self, point: Point) -> int:
        """Return the index of a point of the space."""
        found, new, _ = self.space.find(point)
        self._specs += new
        return found[0]


def best_by_simulation(problem: Problem) -> dict[str, object]:
    """Return the highest capacity found with the simulator alone, its point, and how many were tried.

    SAMPLED points are tried, then the neighbours of each of the best CLIMBS until none is better.
    """
    search = Climb(problem)
    search.try_all(range(min(SAMPLED, len(search.space.points))))
    ends = []
    for start in search.best[-CLIMBS:]:
        search.climb_from(*start)
        ends.append(search.best[-1])
    qps, winner = max(ends)
    return {"qps": round(qps, 4), "point": dict(search.space.points[winner]), "tried": len(search.tried)}
