"""How fast the simulated rack is: queries/s of the default trial, and how time grows with the query count.

    python benchmarks/simulate.py

Best of three runs each, compiled loops, arrivals and lengths included.
"""

from __future__ import annotations

import time

from tune.config import compose_overrides
from tune.sim.rack import simulate
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec

COUNTS = (1_000, 10_000, 100_000, 1_000_000)


def best_s(spec: TrialSpec, calibration: Calibration) -> float:
    """Seconds of the fastest of three runs."""
    times_s = []
    for _ in range(3):
        begin_s = time.perf_counter()
        simulate(spec, calibration)
        times_s.append(time.perf_counter() - begin_s)
    return min(times_s)


def main() -> None:
    settings = compose_overrides(()).settings
    spec = settings.trial_spec
    calibration = settings.cluster.calibration
    assert calibration is not None
    default_s = best_s(spec, calibration)
    print(f"{'queries':>10}{'seconds':>10}{'queries/s':>12}{'us/query':>10}")
    queries = spec.load.expected_queries
    print(f"{queries:10}{default_s:10.4f}{queries / default_s:12.0f}{'':10}  default trial")
    for count in COUNTS:
        change = {"min_queries": count, "min_duration_s": 1.0, "concatenate_permutation": False}
        longer = spec.model_copy(update={"load": spec.load.model_copy(update=change)})
        seconds = best_s(longer, calibration)
        print(f"{count:10}{seconds:10.4f}{count / seconds:12.0f}{seconds / count * 1e6:10.2f}")


if __name__ == "__main__":
    main()
