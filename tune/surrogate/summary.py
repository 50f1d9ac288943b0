"""Summarise the posterior as the record that a study keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import ndtr

from tune.records.posterior_summary import (
    HypothesisPosterior,
    Interval,
    ParameterPosterior,
    PosteriorSummary,
    TrialPosterior,
)
from tune.spec.cluster import Calibration
from tune.surrogate.credible_interval import credible_interval
from tune.surrogate.kinds import kind_posteriors
from tune.surrogate.observation import Observation
from tune.surrogate.optimizer import SurrogateOptimizer
from tune.surrogate.prediction import Prediction
from tune.surrogate.prior import ROUTERS, ParameterSamples


def summarise_posterior(
    search: SurrogateOptimizer,
    prediction: Prediction,
    observations: Sequence[Observation],
    trials: Sequence[tuple[str, int, Observation]],
) -> PosteriorSummary:
    """Return the record of the posterior.

    Parameters
    ----------
    search
        Optimizer that made the prediction.
    prediction
        What `search.predict(observations)` returned.
    observations
        All observations that the posterior is conditioned on.
    trials
        Trials on record: trial id, trial number and observation. Only those of status "measured" are compared
        with the simulator.

    Returns
    -------
    PosteriorSummary
    """
    measured = [trial for trial in trials if trial[2].status == "measured"]
    improvement = search.expected_improvement(prediction, observations)
    return PosteriorSummary(
        schema=2,
        trials_observed=len(observations),
        parameters=_parameters(search, prediction.samples),
        hypotheses=_hypotheses(search, prediction.samples),
        trials=tuple(_trials(search, prediction, measured)),
        kinds=kind_posteriors(search, prediction, observations),
        expected_improvement_frac=float(improvement.max(initial=0.0)),
        calibration=_calibration(search, prediction.samples),
    )


def _parameters(search: SurrogateOptimizer, samples: ParameterSamples) -> tuple[ParameterPosterior, ...]:
    """Return prior and posterior interval of the factor on each parameter."""
    prior, posterior = search.prior.factors(search.prior_samples), search.prior.factors(samples)
    return tuple(
        ParameterPosterior(
            name=name, prior=credible_interval(prior[name]), posterior=credible_interval(posterior[name])
        )
        for name in search.prior.names
    )


def _hypotheses(search: SurrogateOptimizer, samples: ParameterSamples) -> tuple[HypothesisPosterior, ...]:
    """Return prior and posterior probability of every value of every hypothesis."""
    rows = []
    for hypothesis in search.prior.hypotheses:
        counts = np.bincount(
            search.prior.hypothesis_choice(samples, hypothesis.name), minlength=len(hypothesis.values)
        )
        shares = counts / len(samples)
        for value, prior, posterior in zip(
            hypothesis.values,
            search.prior.hypothesis_probability(hypothesis.name),
            shares.tolist(),
            strict=True,
        ):
            text = ROUTERS[int(value)] if hypothesis.name == "router" else f"{value:g}"
            rows.append(
                HypothesisPosterior(
                    name=f"{hypothesis.name}={text}", prior_frac=prior, posterior_frac=posterior
                )
            )
    return tuple(rows)


def _trials(
    search: SurrogateOptimizer, prediction: Prediction, trials: Sequence[tuple[str, int, Observation]]
) -> Iterator[TrialPosterior]:
    """Yield the measured capacity of each trial beside the simulated one, in standard deviations."""
    indices = [observation.index for _, _, observation in trials]
    simulated, better = prediction.log_simulated[:, indices], _better_fracs(prediction, indices)
    low, median, high = np.exp(np.quantile(simulated, [0.05, 0.5, 0.95], axis=0))
    models = search.prior.error_models
    variances = np.array([sum(model.variances) + model.noise_sd**2 for model in models])
    error_variance = variances[search.prior.error_model_of(prediction.samples)].mean()
    spread = np.sqrt(simulated.var(0) + error_variance)
    for row, (trial_id, number, observation) in enumerate(trials):
        log_ratio = np.log(max(observation.qps, 1e-3) / median[row])
        yield TrialPosterior(
            trial_id=trial_id,
            number=number,
            measured_qps=observation.qps,
            simulated_qps=Interval(low=low[row], median=median[row], high=high[row]),
            standardised_residual=float(log_ratio / spread[row]),
            expected_capacity_qps=float(prediction.expected_capacity_qps[observation.index]),
            better_frac=better.get(observation.index),
        )


def _better_fracs(prediction: Prediction, indices: Sequence[int]) -> dict[int, float]:
    """Return by configuration the probability that its capacity is higher than that of the best of `indices`.

    The best is the one with the highest expected capacity; it is left out.
    """
    best = max(indices, key=lambda index: float(prediction.expected_capacity_qps[index]), default=None)
    others = [index for index in dict.fromkeys(indices) if index != best]
    if best is None:
        return {}
    difference = prediction.log_mean[:, others] - prediction.log_mean[:, [best]]
    sd = np.hypot(prediction.sd[:, others], prediction.sd[:, [best]])
    return dict(zip(others, ndtr(difference / sd).mean(0).tolist(), strict=True))


def _calibration(search: SurrogateOptimizer, samples: ParameterSamples) -> dict[str, float]:
    """Return the most probable joint hypotheses, and the median parameters of the samples that have them."""
    choices, counts = np.unique(samples.choice, axis=0, return_counts=True)
    likely = samples[np.flatnonzero((samples.choice == choices[counts.argmax()]).all(1))]
    factors = search.prior.factors(likely)
    parameters = {
        name: getattr(search.calibration, name) * float(np.median(factors[name]))
        for name in search.prior.names
        if name in Calibration.model_fields
    }
    values = {
        hypothesis.name: float(search.prior.hypothesis_value(likely, hypothesis.name)[0])
        for hypothesis in search.prior.hypotheses
        if hypothesis.name in Calibration.model_fields
    }
    return parameters | values
