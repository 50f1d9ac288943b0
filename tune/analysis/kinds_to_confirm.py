"""Choose the kinds of configurations that a confirmation measures. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from tune.analysis.model_error_sources import covered_frac
from tune.records.outcome import Outcome
from tune.records.posterior_summary import PosteriorSummary


def kinds_to_confirm(posterior: PosteriorSummary | None, best: Outcome, held: Sequence[str]) -> list[str]:
    """Return `held` and the kinds that may be as good, each before those expected to give less.

    These are kinds whose best candidate was not measured, and whose 90 % interval reaches that of the best
    measured kind. On a simulated rack the best one's interval is wider by the simulator's own error.

    Parameters
    ----------
    posterior
        What the search learned, None for a search that does not learn.
    best
        The best trial.
    held
        Kinds with a measured configuration that held its SLO, best first: that of `best`, which stays first.

    Returns
    -------
    list[str]
        Equal to `held` where the record states no points of the kinds.
    """
    order, kinds = list(held), posterior.kinds if posterior else ()
    if not kinds:
        return order
    expected = {kind.kind: kind.expected_output_tps_per_gpu for kind in kinds}
    error_frac = covered_frac(best.model_error.sd_frac) if best.model_error else 0.0
    enough = expected.get(held[0], kinds[0].expected_output_tps_per_gpu).low * (1 - error_frac)
    medians = {name: interval.median for name, interval in expected.items()}
    for kind in kinds:
        if kind.kind in held or kind.is_measured or kind.params is None or expected[kind.kind].high < enough:
            continue
        lower = (k for k in range(1, len(order)) if medians.get(order[k], 0.0) < medians[kind.kind])
        order.insert(next(lower, len(order)), kind.kind)
    return order
