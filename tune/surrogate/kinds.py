"""Predict the best candidate of every kind: of each split and parallelism that the sweep allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tune.records.posterior_summary import KindPosterior
from tune.surrogate.credible_interval import expected_capacity_qps
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.prediction import Prediction
from tune.workload.length_summary import mean_sequence

_MEASURED = ("measured", "forecast", "above", "below")
"""Statuses of observations that show something of a candidate's capacity."""


def kind_posteriors(
    search: SurrogateOptimizer, prediction: Prediction, observations: Sequence[Observation]
) -> tuple[KindPosterior, ...]:
    """Return what is expected of the best candidate of each kind, the best kind first.

    Candidates that crashed, or were not predicted, are left out.

    Parameters
    ----------
    search
        Optimizer that made the prediction.
    prediction
        What `search.predict(observations)` returned.
    observations
        All observations that the posterior is conditioned on.

    Returns
    -------
    tuple[KindPosterior, ...]
    """
    crashed = [observation.index for observation in observations if observation.status == "crashed"]
    measured = {observation.index for observation in observations if observation.status in _MEASURED}
    candidates = np.setdiff1d(np.flatnonzero(prediction.is_predicted), crashed)
    order = candidates[np.argsort(-prediction.expected_capacity_qps[candidates], kind="stable")]
    best: dict[str, int] = {}
    for index in order.tolist():
        best.setdefault(search.kinds[index], index)
    first, error_scale = search.specs[0], search.error_scale(observations)
    tokens_per_gpu = mean_sequence(first.load.dataset).answer_tokens / first.hardware.gpus
    return tuple(
        KindPosterior(
            kind=kind,
            trial_id=search.specs[index].trial_id,
            is_measured=index in measured,
            expected_output_tps_per_gpu=expected_capacity_qps(prediction, index, error_scale).scaled(
                tokens_per_gpu
            ),
        )
        for kind, index in best.items()
    )
