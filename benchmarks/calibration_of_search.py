"""Count how often intervals of search=surrogate contain what is measured, and how near the best studies end.

    python benchmarks/calibration_of_search.py best [--problems 0 1 2]
    python benchmarks/calibration_of_search.py studies [--problems 0 1 2] [--seeds 0]

A problem is a simulated rack as it is calibrated; its number draws hardware, model, lengths, limits and a
space of 3 to 11 dimensions. Numbers from HELD_OUT on are held out. Runs have QUERIES requests and last
DURATION_S at least, so that a capacity takes a few seconds at most. `best` looks for the highest capacity
with the simulator alone: at SAMPLED points of the space, then at all neighbours of the best CLIMBS until none
is better; the result goes to DATA. `studies` runs each study as `tune` does, one trial at a time, until it
ends by study.min_gain or after TRIALS; a deployment shows its capacity and those of its pools, with NOISE_SD
of noise. Its answer is the configuration with the highest expected capacity of those measured. It is compared
with the higher of DATA and what a climb from the answer finds.
"""

from __future__ import annotations

# isort: split
import tune.__main__  # noqa: F401  as the command does, before numpy comes in

# isort: split
import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from simulated_problems import (
    LOWEST_QPS,
    Climb,
    Problem,
    best_by_simulation,
    draw_problem,
    highest_rate,
    holds,
)

from tune.analysis.judge import TrialFacts, judge_unmeasured
from tune.capacity.simulator_forecast import MAX_POOL_CAPACITY_RATIO
from tune.records.outcome import CapacityQps, Outcome
from tune.spec.bind import Point, bind_point
from tune.spec.trial import TrialSpec
from tune.study.candidate_space import CandidateSpace
from tune.study.candidates import candidates
from tune.study.proposer import TrialSuggestion
from tune.study.surrogate_proposer import SurrogateProposer

HELD_OUT = 20
TRIALS, NOISE_SD = 24, 0.01
DATA = Path(__file__).parent / "data" / "calibration_of_search.json"


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
    capacity = CapacityQps(low=qps, high=None, estimate=noise * qps, stopped_early=False, **pools)
    return start.model_copy(update={"status": "measured", "feasible": qps > 0, "capacity_qps": capacity})


@dataclass(frozen=True)
class Study:
    """Hold what one study shows: of each trial measurement, prediction and true capacity, and the end.

    `log_errors` are measurement over median, `half_widths` half the log width of the 90 % interval.
    """

    points: Sequence[Point]
    inside: Sequence[bool]
    log_errors: Sequence[float]
    half_widths: Sequence[float]
    true_qps: Sequence[float]
    answer: int
    ended: bool
    seconds: float


def proposer_of(problem: Problem, seed: int) -> SurrogateProposer:
    """Return the search of a study."""
    settings = problem.settings
    assert settings.sweep
    first = candidates(settings.trial_spec, settings.sweep, seed)
    space = CandidateSpace(settings.trial_spec, settings.sweep, first, seed)
    return SurrogateProposer(
        settings.sweep.space, first, space, problem.calibration, seed, min_gain=settings.study.min_gain
    )


def run_study(problem: Problem, seed: int) -> Study:
    """Run one study as `tune` does, one trial at a time."""
    settings, began, proposer = problem.settings, time.perf_counter(), proposer_of(problem, seed)
    assert settings.sweep
    points, errors, widths, true_qps, inside, ended = [], [], [], [], [], False
    for number in range(TRIALS):
        suggestion = proposer.suggest(number)
        if not isinstance(suggestion, TrialSuggestion):
            ended = True
            break
        interval = suggestion.expected_capacity_qps
        assert interval
        spec = bind_point(settings.trial_spec, settings.sweep, suggestion.point)
        outcome = measured(problem, spec, number, interval.median)
        qps = outcome.capacity_qps.estimate or LOWEST_QPS
        points.append(suggestion.point)
        true_qps.append(outcome.capacity_qps.low or 0.0)
        inside.append(interval.low <= qps <= interval.high)
        errors.append(float(np.log(qps / interval.median)))
        widths.append(float(np.log(interval.high / interval.low)) / 2)
        proposer.observe(number, outcome)
    trials = proposer.summarise({number: str(number) for number in range(len(points))}).trials
    answer = max(trials, key=lambda trial: trial.expected_capacity_qps or 0.0).number
    return Study(points, inside, errors, widths, true_qps, answer, ended, time.perf_counter() - began)


def best_qps(problem: Problem, study: Study, known_qps: float) -> float:
    """Return the highest capacity known: `known_qps`, or what a climb from the study's answer finds."""
    climb = Climb(problem)
    climb.climb_from(study.true_qps[study.answer], climb.index_of(study.points[study.answer]))
    return max(known_qps, climb.best[-1][0])


def describe(problem: Problem, seed: int, study: Study, gap: float) -> str:
    """Return what a study shows, in one line."""
    inside, answer_qps = f"{sum(study.inside)} of {len(study.inside)}", study.true_qps[study.answer]
    return (
        f"{problem.number:2d} seed {seed} {problem.label}: {inside} inside, answer {answer_qps:.2f} QPS, "
        f"half width {np.median(study.half_widths):.3f}, error sd {np.std(study.log_errors[1:]):.3f}, "
        f"{100 * gap:.1f} % below the best, {'ended' if study.ended else 'not ended'}, "
        f"{study.seconds:.0f} s"
    )


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
            gap = 1 - study.true_qps[study.answer] / best_qps(problem, study, known[str(number)]["qps"])
            studies.append((study, gap))
            print(describe(problem, seed, study, gap), flush=True)
    if studies:
        inside = [value for study, _ in studies for value in study.inside]
        ended = [gap for study, gap in studies if study.ended]
        print(
            f"inside: {np.mean(inside):.1%} of {len(inside)}; ended: {len(ended)} of {len(studies)}, "
            f"within 2 %: {sum(gap <= 0.02 for gap in ended)}"
        )


if __name__ == "__main__":
    main()
