"""Measure the processor time to suggest, observe and record a trial, by the number of trials so far.

    python benchmarks/ask_time.py [--trials 10 50 200] [--searches surrogate tpe]

The sweep is pd_split with load.mode=capacity; capacities of outcomes are drawn evenly from 8 to 17 QPS.
"""

from __future__ import annotations

# isort: split
import tune.__main__  # noqa: F401  as the command does, before numpy comes in

# isort: split
import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from machine import cpus

from tune.analysis.judge import TrialFacts, judge_unmeasured
from tune.config import compose_overrides
from tune.records.folders import StudyFolder
from tune.records.outcome import CapacityQps, Outcome
from tune.records.posterior_summary import write_posterior
from tune.records.proposals import Proposal
from tune.study.proposer import Proposer, SearchEnd
from tune.study.registry import SearchProblem, make_proposer

SETTINGS = compose_overrides(["+sweep=pd_split", "load.mode=capacity"]).settings
REPEATS = 5


def outcome(number: int, qps: float) -> Outcome:
    """Make up the outcome of a deployment with a capacity of `qps`."""
    facts = TrialFacts(number, "made up")
    start = judge_unmeasured("infeasible", SETTINGS.trial_spec, "made up", facts)
    pools = {"prefill": 1.3 * qps, "decode": 1.02 * qps}
    capacity = CapacityQps(low=qps, high=None, estimate=qps, stopped_early=False, **pools)
    measured = {"status": "measured", "feasible": True, "output_tps_per_gpu": 8.75 * qps}
    return start.model_copy(update=measured | {"capacity_qps": capacity})


def times(proposer: Proposer, folder: StudyFolder, most: int) -> list[float]:
    """Return the seconds of the processor of each trial: suggest, observe, and write the records."""
    draws, seconds, ids = np.random.default_rng(0), [], {}
    for number in range(most):
        began = time.process_time()
        suggestion = proposer.suggest(number)
        if isinstance(suggestion, SearchEnd):
            break
        trial = outcome(number, float(draws.uniform(8, 17)))
        ids[number] = f"t{number}"
        proposal = Proposal(
            number=number, params=dict(suggestion.point), source="made up", trial_id=ids[number]
        )
        folder.append_proposal(proposal)
        proposer.observe(number, trial)
        posterior = proposer.summarise(ids)
        if posterior:
            write_posterior(folder.root, posterior)
        seconds.append(time.process_time() - began)
    return seconds


def main() -> None:
    """Measure the searches that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--searches", nargs="+", default=["surrogate", "tpe"])
    options = parser.parse_args()
    assert SETTINGS.sweep
    assert SETTINGS.cluster.calibration
    print(f"{datetime.now(UTC):%Y-%m-%d}  {cpus()} CPUs; median of the {REPEATS} trials up to each number")
    for name in options.searches:
        search = SETTINGS.search.model_copy(update={"name": name})
        study = SETTINGS.study.model_copy(update={"min_gain": 0.0})
        settings = SETTINGS.model_copy(update={"study": study})
        problem = SearchProblem(settings.sweep.space, search, 0, settings=settings, sweep=settings.sweep)
        began = time.process_time()
        proposer = make_proposer(problem)
        prepared_s = time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            seconds = times(proposer, StudyFolder(Path(folder)), max(options.trials))
        cells = (f"{median(seconds[n - REPEATS : n]) * 1e3:.0f} ms at {n}" for n in options.trials)
        print(f"{name:>10}: {', '.join(cells)}; {prepared_s:.1f} s before the first")


if __name__ == "__main__":
    main()
