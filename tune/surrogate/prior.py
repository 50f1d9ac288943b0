"""Define the prior of the simulator's parameters: factors on the calibration, and discrete hypotheses.

The method is Bayesian calibration of computer models (Kennedy and O'Hagan, J. R. Stat. Soc. B 63, 2001): the
simulator is right for some unknown parameters, up to a discrepancy that is smooth over configurations.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tune.core.arrays import BoolArray, FloatArray, IntArray
from tune.spec.cluster import Calibration
from tune.spec.trial import TrialSpec
from tune.surrogate.error_model import ErrorModel

PARAMETER_LOG_SD = {
    "prefill_scale": 0.3,
    "decode_scale": 0.3,
    "all_reduce": 0.35,
    "ttft_overhead_s": 0.7,
    "frontend_message_s": 0.5,
    "kv_transfer_bytes_per_s": 1.2,
    "kv_capacity": 0.15,
}
"""Prior standard deviation of the log of the factor on each parameter. Chosen here: kernels of another
software stack or GPU are within a factor of 1.8 (two standard deviations), and a network may be Ethernet
where NVLink was assumed. `all_reduce` is a time, `kv_capacity` the KV cache of a decode worker in tokens."""

TP_SCALE_LOG_SD = 0.1
"""Prior standard deviation of the log of a further factor on the step times of one tensor parallelism."""

MAX_FACTOR = {"kv_capacity": 1.1}
"""Upper limit of a factor: the free KV cache is known from the memory of the GPU."""

CONFIGURED_ROUTER_PROBABILITY = 0.6
"""Prior probability that requests are routed as configured. Chosen on the development racks of
benchmarks/search_synthetic_racks.py, half of which route otherwise."""


CALIBRATION_ERROR = "calibration_error"
"""Name of the hypothesis how far the rack is from its calibration: a factor on the prior standard deviation
of every parameter, and on that of the discrepancy."""

CALIBRATION_ERRORS, CALIBRATION_ERROR_PROBABILITY = (1.0, 0.4, 0.1, 0.03), (0.4, 0.2, 0.2, 0.2)
"""Values of that hypothesis and their prior probabilities. Chosen here: another rack, one like it, the
calibrated one, and the simulated one itself."""

CALIBRATED = 0.1
"""Value of CALIBRATION_ERROR up to which all hypotheses about the rack are as configured."""

EMULATOR_SD, NOISE_SD = "emulator_sd", "noise_sd"
"""Names of the hypotheses how precise the emulator and a measurement are; see ErrorModel."""

ERROR_HYPOTHESES = (
    (CALIBRATION_ERROR, CALIBRATION_ERRORS, CALIBRATION_ERROR_PROBABILITY),
    (EMULATOR_SD, (0.015, 0.005), (0.5, 0.5)),
    (NOISE_SD, (0.02, 0.01), (0.5, 0.5)),
)
"""Name, values and prior probabilities of the hypotheses about errors; the measurements of a study decide
between them. Chosen on the development problems of benchmarks/calibration_of_search.py."""


@dataclass(frozen=True)
class Hypothesis:
    """Hold the values that a discrete parameter may have, and their prior probabilities."""

    name: str
    values: tuple[float, ...]
    probability: tuple[float, ...]


ROUTERS = ("round-robin", "random", "least-loaded")
"""Routing modes; a value of the hypothesis `router` is an index into these."""


def structural_hypotheses(
    spec: TrialSpec, calibration: Calibration, structural: bool = True
) -> tuple[Hypothesis, ...]:
    """Return the discrete hypotheses; the value of the configuration or calibration is the most probable.

    Parameters
    ----------
    spec
        Trial whose router is the configured one.
    calibration
        Calibration whose values are the most probable ones.
    structural
        Whether other values are possible at all; if not, each hypothesis has one certain value.

    Returns
    -------
    tuple[Hypothesis, ...]
    """
    table = (
        ("router", (0.0, 1.0, 2.0), float(ROUTERS.index(_router(spec))), CONFIGURED_ROUTER_PROBABILITY),
        ("large_batch_weight_reads", (0.0, 1.0, 2.0), calibration.large_batch_weight_reads, 0.5),
        ("last_decode_worker_scale", (1.0, 1.15, 1.3), calibration.last_decode_worker_scale, 0.5),
        ("head_node_scale", (1.0, 1.1, 1.2), calibration.head_node_scale, 0.5),
    )
    if structural:
        errors = (Hypothesis(*row) for row in ERROR_HYPOTHESES)
        return (*(_around(*row) for row in table), *errors)
    return tuple(Hypothesis(name, (configured,), (1.0,)) for name, _, configured, _ in table)


def _router(spec: TrialSpec) -> str:
    """Return the configured router; round-robin for one that has no model."""
    return spec.stack.router_mode if spec.stack.router_mode in ROUTERS else "round-robin"


def _around(name: str, values: Sequence[float], configured: float, probability: float) -> Hypothesis:
    """Give `probability` to the `configured` value and share the rest among the other `values`."""
    others = tuple(value for value in values if value != configured)
    rest = (1 - probability) / len(others)
    return Hypothesis(name, (configured, *others), (probability, *(rest for _ in others)))


@dataclass(frozen=True, eq=False)
class ParameterSamples:
    """Hold samples of the simulator's parameters.

    `normal` (n, parameters) are log factors in prior standard deviations, `choice` (n, hypotheses) indices
    into the values of each hypothesis.
    """

    normal: FloatArray
    choice: IntArray

    def __len__(self) -> int:
        return len(self.normal)

    def __getitem__(self, indices: IntArray) -> ParameterSamples:
        return ParameterSamples(self.normal[indices], self.choice[indices])

    def unique(self) -> tuple[ParameterSamples, IntArray]:
        """Return the distinct samples, and for every sample its index among them, shape (n,)."""
        columns = np.column_stack([self.normal, self.choice])
        _, first, inverse = np.unique(columns, axis=0, return_index=True, return_inverse=True)
        return self[first], inverse


_ERRORS = frozenset(name for name, _, _ in ERROR_HYPOTHESES)


class ParameterPrior:
    """Describe the prior of the parameters for configurations of given tensor parallelisms."""

    def __init__(
        self, prefill_tp: Sequence[int], decode_tp: Sequence[int], hypotheses: Sequence[Hypothesis]
    ) -> None:
        """Add a scale of the step times for each tensor parallelism of a pool that has several."""
        scales = {f"prefill_scale_tp{tp}": TP_SCALE_LOG_SD for tp in prefill_tp if len(prefill_tp) > 1}
        scales |= {f"decode_scale_tp{tp}": TP_SCALE_LOG_SD for tp in decode_tp if len(decode_tp) > 1}
        self.log_sd: Mapping[str, float] = PARAMETER_LOG_SD | scales
        self.names = tuple(self.log_sd)
        self.hypotheses = tuple(hypotheses)
        self._log_sd = np.array(list(self.log_sd.values()))

    def draw(self, count: int, generator: np.random.Generator) -> ParameterSamples:
        """Draw `count` samples from the prior."""
        choices = [
            generator.choice(len(hypothesis.values), count, p=hypothesis.probability)
            for hypothesis in self.hypotheses
        ]
        choice = np.stack(choices, 1)
        is_calibrated = self._is_calibrated(choice)
        for column, hypothesis in zip(choice.T, self.hypotheses, strict=True):
            if hypothesis.name not in _ERRORS:
                column[is_calibrated] = 0
        return ParameterSamples(generator.normal(size=(count, len(self.names))), choice)

    def log_density(self, samples: ParameterSamples) -> FloatArray:
        """Return the log prior density of each sample, shape (n,), up to a constant."""
        log_density: FloatArray = -0.5 * (samples.normal**2).sum(1)
        is_calibrated = self._is_calibrated(samples.choice)
        for index, hypothesis in enumerate(self.hypotheses):
            log_probability = np.log(np.array(hypothesis.probability))[samples.choice[:, index]]
            if hypothesis.name not in _ERRORS:
                as_configured = np.where(samples.choice[:, index] == 0, 0.0, -np.inf)
                log_probability = np.where(is_calibrated, as_configured, log_probability)
            log_density += log_probability
        return log_density

    def factors(self, samples: ParameterSamples) -> Mapping[str, FloatArray]:
        """Return by parameter name the factor of each sample, shape (n,); 1 for names without a prior."""
        values = np.exp(self._log_sd * samples.normal * self.calibration_error(samples)[:, None]).T
        factors = {
            name: np.minimum(values[index], MAX_FACTOR.get(name, np.inf))
            for index, name in enumerate(self.names)
        }
        return defaultdict(partial(np.ones, len(samples)), factors)

    @property
    def calibration_errors(self) -> tuple[float, ...]:
        """Return the possible values of CALIBRATION_ERROR; 1 without it."""
        if CALIBRATION_ERROR in {hypothesis.name for hypothesis in self.hypotheses}:
            return self.hypothesis_values(CALIBRATION_ERROR)
        return (1.0,)

    @property
    def error_models(self) -> list[ErrorModel]:
        """Return the possible error models; the default one without hypotheses about errors."""
        known = [hypothesis for hypothesis in self.hypotheses if hypothesis.name in _ERRORS]
        return [ErrorModel(*values) for values in itertools.product(*(each.values for each in known))]

    def error_model_of(self, samples: ParameterSamples) -> IntArray:
        """Return the position of each sample's error model in `error_models`, shape (n,)."""
        number = np.zeros(len(samples), int)
        for index, hypothesis in enumerate(self.hypotheses):
            if hypothesis.name in _ERRORS:
                number = number * len(hypothesis.values) + samples.choice[:, index]
        return number

    def calibration_error(self, samples: ParameterSamples) -> FloatArray:
        """Return the value that each sample has for CALIBRATION_ERROR, shape (n,); 1 without it."""
        if len(self.calibration_errors) == 1:
            return np.full(len(samples), self.calibration_errors[0])
        return self.hypothesis_value(samples, CALIBRATION_ERROR)

    def _is_calibrated(self, choice: IntArray) -> BoolArray:
        """Return which rows of `choice` (n, hypotheses) stand for the calibrated rack, shape (n,)."""
        is_calibrated = np.zeros(len(choice), bool)
        for column, hypothesis in zip(choice.T, self.hypotheses, strict=True):
            if hypothesis.name == CALIBRATION_ERROR:
                is_calibrated |= np.array(hypothesis.values)[column] <= CALIBRATED
        return is_calibrated

    def hypothesis_probability(self, name: str) -> tuple[float, ...]:
        """Return the prior probability of each value of hypothesis `name`, over all other hypotheses."""
        hypothesis = self.hypotheses[self._index(name)]
        if name in _ERRORS or len(self.calibration_errors) == 1:
            return hypothesis.probability
        errors = zip(self.calibration_errors, self.hypothesis_probability(CALIBRATION_ERROR), strict=True)
        calibrated = sum(frac for value, frac in errors if value <= CALIBRATED)
        first, *others = ((1 - calibrated) * frac for frac in hypothesis.probability)
        return (calibrated + first, *others)

    def hypothesis_values(self, name: str) -> tuple[float, ...]:
        """Return the possible values of hypothesis `name`."""
        return self.hypotheses[self._index(name)].values

    def hypothesis_choice(self, samples: ParameterSamples, name: str) -> IntArray:
        """Return the index of the value that each sample has for hypothesis `name`, shape (n,)."""
        return samples.choice[:, self._index(name)]

    def hypothesis_value(self, samples: ParameterSamples, name: str) -> FloatArray:
        """Return the value that each sample has for hypothesis `name`, shape (n,)."""
        value: FloatArray = np.array(self.hypothesis_values(name))[self.hypothesis_choice(samples, name)]
        return value

    def _index(self, name: str) -> int:
        """Return the position of hypothesis `name`."""
        return next(index for index, hypothesis in enumerate(self.hypotheses) if hypothesis.name == name)
