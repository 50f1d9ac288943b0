"""Estimate how far a simulated rate may lie from that of the real rack, by what the rack was calibrated to.

The rate of a configuration is that of the pool that limits it, so the errors of that pool's step times are
the errors of the rate. The simulated rack was fitted to one run (docs/simulator.md, "Accuracy"): the error
grows with each setting in which a trial differs from that run. Two configurations of one rack share the
errors of what they have in common, which leave their order as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tune.records.model_error import ErrorSource, ModelError
from tune.records.outcome import BottleneckKind
from tune.spec.cluster import Calibration
from tune.spec.split import ROLES, Role
from tune.spec.trial import TrialSpec
from tune.workload.length_summary import mean_sequence

SD_OF_MEAN_ERROR = math.sqrt(math.pi / 2)
"""Standard deviation of a normal error over its mean absolute value."""

COVERED_SDS = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution."""

FITTED_SCALES: dict[Role, float] = {"prefill": 0.895, "decode": 1.08}
"""Scales of the shipped calibration (conf/cluster/sim.yaml). Another value is a calibration of the user's."""

_SCALE_SD: dict[Role, float] = {"prefill": 0.031, "decode": 0.028}
"""Half of the 95 % intervals 0.84 .. 0.95 and 1.02 .. 1.14 of the fitted scales, over 1.96."""

_STEP_ERROR: dict[Role, dict[int, float]] = {
    "prefill": {2: 0.036, 8: 0.052},
    "decode": {2: 0.043, 8: 0.050},
}
"""Mean error of the step times of 405B by tensor parallelism (docs/benchmarks.md, "Step times"). TP4, to
which the scales are fitted, has none."""

_UNSEEN_ERROR: dict[Role, float] = {"prefill": 0.068, "decode": 0.060}
"""Largest mean error of the step times on a file that the fit had not seen (docs/benchmarks.md)."""

_CHUNK_ERROR = 0.030
"""Mean error of prefill steps within the file of TP4: what one chunk size may be off against another."""

_MECHANISM_SD = 0.03
"""Largest difference of a capacity between the two hypotheses on decode that fit the published run
(docs/simulator.md), where decode is the bottleneck."""

_MIXED_STEP_SD = 0.08
"""Steps of aggregated workers follow from those of both pools by a formula (tune/sim/aggregated_loop.py), and
were never compared with a measurement. Chosen here: more than the largest error of either kind of steps."""

_HARDWARE_SD = 0.15
"""Other hardware rests on its data sheet and was never compared with a measurement. Chosen here."""

_FITTED_TP, _FITTED_CHUNK_TOKENS = 4, 4096
_FITTED_HARDWARE, _FITTED_MODEL = ("gb200-nvl72", "gb200-nvl36"), "llama3.1-405b-fp4"
_FITTED_PROMPT_TOKENS, _FITTED_ANSWER_TOKENS = 9400.0, 629.9
_FAR_LOG_RATIO = math.log(2)
"""Distance of mean lengths, as a logarithm, from which step times count as unseen. Chosen here."""

_SAME_FRAC = 0.01
"""Share of that distance below which lengths are the fitted ones: drawn lengths are whole tokens."""


def estimate_model_error(
    spec: TrialSpec, calibration: Calibration, kind: BottleneckKind | None
) -> ModelError:
    """Return the model error of a simulated rate.

    Parameters
    ----------
    spec
        The trial.
    calibration
        The calibration of the simulated rack. One with scales of its own counts as fitted to the trial's
        hardware, model and workload.
    kind
        The bottleneck of the trial. Where it is neither pool, the pool with the larger error counts.

    Returns
    -------
    ModelError
        The sources of the error with their standard deviations.
    """
    shipped = all(getattr(calibration, f"{role}_scale") == FITTED_SCALES[role] for role in ROLES)
    errors = [
        ModelError(
            sources=(
                *_of_steps(spec, role),
                *(_of_distance(spec, role) if shipped else ()),
                *_of_mixed_steps(spec),
            )
        )
        for role in _limiting_pools(kind)
    ]
    return max(errors, key=lambda error: error.sd_frac)


def _limiting_pools(kind: BottleneckKind | None) -> tuple[Role, ...]:
    """Return the pools of which one decides the rate by its step times."""
    if kind == "prefill":
        return ("prefill",)
    if kind in ("decode_slots", "decode_kv", "decode_step_time"):
        return ("decode",)
    return ROLES


def _of_steps(spec: TrialSpec, role: Role) -> Iterator[ErrorSource]:
    """Yield the errors of a pool's step times on the hardware, model and workload of the calibration."""
    engine = spec.engine(role)
    yield ErrorSource(
        name=f"{role} scale", sd_frac=_SCALE_SD[role], basis="95 % interval of the fitted scale"
    )
    parallel = engine.tensor_parallel
    if parallel != _FITTED_TP or engine.pipeline_stages > 1:
        mean = _UNSEEN_ERROR[role]
        basis = "mean error on a file that the fit had not seen"
        if engine.pipeline_stages == 1 and parallel in _STEP_ERROR[role]:
            mean, basis = _STEP_ERROR[role][parallel], "mean error of the fitted step times"
        stages = f" PP{engine.pipeline_stages}" if engine.pipeline_stages > 1 else ""
        yield _mean_error(f"{role} steps at TP{parallel}{stages}", mean, basis)
    if role == "prefill" and engine.token_budget != _FITTED_CHUNK_TOKENS:
        basis = "mean error of the fitted prefill steps at TP4"
        yield _mean_error(f"prefill chunks of {engine.token_budget} tokens", _CHUNK_ERROR, basis)
    if role == "decode":
        name = f"decode mechanism in {spec.split.label} at TP{parallel}"
        basis = "difference between the two hypotheses that fit the published run"
        yield ErrorSource(name=name, sd_frac=_MECHANISM_SD, basis=basis)


def _of_mixed_steps(spec: TrialSpec) -> Iterator[ErrorSource]:
    """Yield the error of steps that read prompts beside answers, which no run was ever compared with."""
    if spec.split.aggregated_workers:
        yield ErrorSource(
            name="steps with prompts and answers",
            sd_frac=_MIXED_STEP_SD,
            basis="formula of both kinds of steps; chosen, not measured",
        )


def _of_distance(spec: TrialSpec, role: Role) -> Iterator[ErrorSource]:
    """Yield the errors of a trial with other hardware, another model or workload than the fitted run."""
    if spec.hardware.name not in _FITTED_HARDWARE:
        yield ErrorSource(
            name=f"{role} on {spec.hardware.name}",
            sd_frac=_HARDWARE_SD,
            basis="data sheet only; chosen, not measured",
        )
    unseen = "mean error on a file that the fit had not seen"
    if spec.model.name != _FITTED_MODEL:
        yield _mean_error(f"{role} steps of {spec.model.name}", _UNSEEN_ERROR[role], unseen)
    distance = min(1.0, _length_distance(spec) / _FAR_LOG_RATIO)
    if distance > _SAME_FRAC:
        yield _mean_error(f"{role} steps of this workload", distance * _UNSEEN_ERROR[role], unseen)


def _length_distance(spec: TrialSpec) -> float:
    """Return the larger distance of the mean prompt and answer from the fitted ones, as a logarithm.

    Lengths from a file count as far: their mean is not at hand here.
    """
    dataset = spec.load.dataset
    if dataset.path is not None:
        return _FAR_LOG_RATIO
    mean = mean_sequence(dataset)
    return max(
        abs(math.log(mean.prompt_tokens / _FITTED_PROMPT_TOKENS)),
        abs(math.log(mean.answer_tokens / _FITTED_ANSWER_TOKENS)),
    )


def _mean_error(name: str, mean_frac: float, basis: str) -> ErrorSource:
    """Return the source of an error with a known mean absolute value."""
    return ErrorSource(name=name, sd_frac=mean_frac * SD_OF_MEAN_ERROR, basis=basis)


def covered_frac(sd_frac: float) -> float:
    """Return half of the 90 % interval of a rate whose logarithm has the standard deviation `sd_frac`."""
    return math.expm1(COVERED_SDS * sd_frac)
