"""Count how often intervals of search=surrogate contain what is measured, and how near the best studies end.

    python benchmarks/calibration_of_search.py best [--problems 0 1 2]
    python benchmarks/calibration_of_search.py studies [--problems 0 1 2] [--seeds 0]

A problem is a simulated rack as it is calibrated; its number draws hardware, model, lengths, limits and a
space of 3 to 11 dimensions. Numbers from HELD_OUT on are held out. Runs have QUERIES requests and last
DURATION_S at least, so that a capacity takes a second at most. `best` looks for the highest capacity with the
simulator alone: at SAMPLED points of the space, then at all neighbours of the best CLIMBS until none is
better; the result goes to DATA. `studies` runs each study as `tune` does, one trial at a time, until it ends
by study.min_gain or after TRIALS; a deployment shows its capacity and those of its pools, with NOISE_SD of
noise.
"""

from __future__ import annotations

# isort: split
import tune.__main__  # noqa: F401  as the command does, before numpy comes in

# isort: split
import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune.analysis.judge import TrialFacts, judge_unmeasured
from tune.analysis.slo import late_requests
from tune.capacity.simulator_forecast import MAX_POOL_CAPACITY_RATIO
from tune.config import compose_overrides
from tune.loadgen.early_stopping import late_allowed
from tune.records.outcome import CapacityQps, Outcome
from tune.sim.simulator import simulate
from tune.spec.bind import bind_point
from tune.spec.cluster import Calibration
from tune.spec.settings import Settings
from tune.spec.split import Role
from tune.spec.trial import TrialSpec
from tune.study.candidate_space import CandidateSpace
from tune.study.candidates import candidates
from tune.study.proposer import TrialSuggestion
from tune.study.surrogate_proposer import SurrogateProposer

QUERIES, DURATION_S, HELD_OUT, PROBLEMS = 1000, 120, 6, 12
SAMPLED, CLIMBS, TRIALS, NOISE_SD = 600, 3, 24, 0.01
TOLERANCE, LOWEST_QPS, HIGHEST_QPS = 1.004, 0.05, 500.0
DATA = Path(__file__).parent / "data" / "calibration_of_search.json"

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
    log = simulate(spec.model_copy(update={"load": spec.load.at(qps)}), problem.calibration, pool)
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


def best_by_simulation(problem: Problem) -> dict[str, object]:
    """Return the highest capacity found with the simulator alone, its point, and how many were tried."""
    settings = problem.settings
    assert settings.sweep
    first = candidates(settings.trial_spec, settings.sweep, 10_000 + problem.number)
    space, specs = CandidateSpace(settings.trial_spec, settings.sweep, first, 0), list(first.specs[:SAMPLED])
    tried = set(range(len(specs)))

    def climbed(index: int, qps: float, others: Sequence[int]) -> tuple[int, float]:
        """Return the best of a configuration with a capacity of `qps` and of `others`, and its capacity."""
        for other in others:
            if holds(problem, specs[other], max(qps * TOLERANCE, 1.0)):
                qps = highest_rate(lambda rate, spec=specs[other]: holds(problem, spec, rate), max(qps, 1.0))  # type: ignore[misc]
                index = other
                best.append((qps, index))
        return index, qps

    best: list[tuple[float, int]] = [(0.0, 0)]
    climbed(0, 0.0, range(len(specs)))
    for start_qps, start in best[-CLIMBS:]:
        index, qps, before = start, start_qps, 0.0
        while qps > before:
            before = qps
            found, new, _ = space.neighbours([index])
            specs += new
            fresh = [other for other in found if other not in tried]
            tried |= set(fresh)
            index, qps = climbed(index, qps, fresh)
    qps, winner = max(best)
    return {"qps": round(qps, 4), "point": dict(space.points[winner]), "tried": len(tried)}


def measured(problem: Problem, spec: TrialSpec, number: int, guess: float) -> Outcome:
    """Return the outcome of a deployment of `spec`."""
    noise = np.exp(np.random.default_rng([problem.number, number]).normal(0, NOISE_SD))
    qps = highest_rate(lambda rate: holds(problem, spec, rate), guess)
    pools = {
        role: min(
            noise * highest_rate(lambda rate, role=role: holds(problem, spec, rate, role), max(qps, 1.0)),  # type: ignore[misc]
            MAX_POOL_CAPACITY_RATIO * noise * qps,
        )
        for role in ("prefill", "decode")
    }
    start = judge_unmeasured("infeasible", spec, "made up", TrialFacts(number, "made up"))
    capacity = CapacityQps(low=qps, high=None, estimate=noise * qps, censored=False, **pools)
    return start.model_copy(update={"status": "measured", "feasible": qps > 0, "capacity_qps": capacity})


@dataclass(frozen=True)
class Study:
    """Hold what one study shows: by trial whether the interval held the measurement, and the end."""

    inside: Sequence[bool]
    log_errors: Sequence[float]
    widths: Sequence[float]
    best_qps: float
    trials: int
    ended: bool
    seconds: float


def run_study(problem: Problem, seed: int) -> Study:
    """Run one study as `tune` does, one trial at a time."""
    settings, began = problem.settings, time.perf_counter()
    assert settings.sweep
    base = settings.trial_spec
    first = candidates(base, settings.sweep, seed)
    space = CandidateSpace(base, settings.sweep, first, seed)
    proposer = SurrogateProposer(
        settings.sweep.space, first, space, problem.calibration, seed, min_gain=settings.study.min_gain
    )
    inside, errors, widths, best, guess, ended = [], [], [], 0.0, 10.0, False
    for number in range(TRIALS):
        suggestion = proposer.suggest(number)
        if not isinstance(suggestion, TrialSuggestion):
            ended = True
            break
        spec = bind_point(base, settings.sweep, suggestion.point)
        interval = suggestion.expected_capacity_qps
        assert interval
        guess = interval.median
        outcome = measured(problem, spec, number, guess)
        qps = outcome.capacity_qps.estimate or 0.0
        best = max(best, outcome.capacity_qps.low or 0.0)
        inside.append(interval.low <= qps <= interval.high)
        errors.append(float(np.log(max(qps, LOWEST_QPS) / interval.median)))
        widths.append(float(np.log(interval.high / interval.low)) / 2)
        proposer.observe(number, outcome)
    return Study(inside, errors, widths, best, len(inside), ended, time.perf_counter() - began)


def main() -> None:
    """Find the best of each problem, or run studies and print a line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["best", "studies"])
    parser.add_argument("--problems", type=int, nargs="+", default=list(range(HELD_OUT)))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    known = json.loads(DATA.read_text()) if DATA.exists() else {}
    studies = []
    for number in options.problems:
        problem = draw_problem(number)
        if options.what == "best":
            known[str(number)] = best_by_simulation(problem)
            DATA.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            print(f"{number:2d} {problem.label}: {known[str(number)]}", flush=True)
            continue
        for seed in options.seeds:
            study = run_study(problem, seed)
            gap = 1 - study.best_qps / float(known[str(number)]["qps"]) if str(number) in known else np.nan
            studies.append((study, gap))
            print(
                f"{number:2d} seed {seed} {problem.label}: "
                f"{sum(study.inside)} of {study.trials} inside, "
                f"{study.best_qps:.2f} queries/s, "
                f"half width {np.median(study.widths):.3f}, error sd {np.std(study.log_errors[1:]):.3f}, "
                f"{100 * gap:.1f} % below the best, {'ended' if study.ended else 'not ended'}, "
                f"{study.seconds:.0f} s",
                flush=True,
            )
    if studies:
        inside = [value for study, _ in studies for value in study.inside]
        ended = [gap for study, gap in studies if study.ended]
        print(
            f"inside: {np.mean(inside):.1%} of {len(inside)}; ended: {len(ended)} of {len(studies)}, "
            f"within 2 %: {sum(gap <= 0.02 for gap in ended)}"
        )


if __name__ == "__main__":
    main()
