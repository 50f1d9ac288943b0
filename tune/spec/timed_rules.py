"""Check that the simulator knows the step times of a trial's model and parallelism."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tune.spec.findings import Finding
from tune.spec.model import TIMED_WEIGHT_DTYPE
from tune.spec.trial import TrialSpec

_UNTIMED = "real engines (cluster=slurm, cluster=local) without search=surrogate"
"""How to run what the simulator cannot time."""

_SHAPE_TOLERANCE_FRAC = 0.1
"""Share by which stated linear parameters may differ from those of the shapes. Chosen here: biases, norms and
rounding are far less, and any other kind of layer is more."""


def check_timed(spec: TrialSpec) -> tuple[Finding, ...]:
    """Return an error for a model, parallelism or engine key whose step times the simulator does not know."""
    return (*_timed_weights(spec), *_timed_layers(spec), *_timed_parallelism(spec), *_timed_keys(spec))


def _timed_weights(spec: TrialSpec) -> Iterator[Finding]:
    if spec.model.weight_dtype != TIMED_WEIGHT_DTYPE:
        yield Finding(
            "error",
            "model.weight_dtype",
            f"{spec.model.weight_dtype}, of {spec.model.name}",
            f"{TIMED_WEIGHT_DTYPE} where step times are simulated, or {_UNTIMED}",
            "the simulator, the mock engines and search=surrogate time every step by kernels that were "
            f"measured with {TIMED_WEIGHT_DTYPE} weights alone",
            "tune/sim/data/step_time_coefficients.json",
        )


def _timed_layers(spec: TrialSpec) -> Iterator[Finding]:
    """Yield an error unless every layer is attention with KV heads and one gated feed-forward layer."""
    model = spec.model
    if model.experts is not None:
        yield Finding(
            "error",
            "model.experts",
            f"{model.experts}, of {model.name}",
            f"null, a dense model, where step times are simulated, or {_UNTIMED}",
            "no step time of a model with experts is known",
            "tune/sim/data/step_time_coefficients.json",
        )
    elif not math.isclose(model.linear_parameters, model.dense_parameters, rel_tol=_SHAPE_TOLERANCE_FRAC):
        yield Finding(
            "error",
            "model.linear_parameters",
            f"{model.linear_parameters:.4g}, of {model.name}",
            f"about {model.dense_parameters:.4g}, by its layers, heads and ffn_size; model.experts for a "
            "mixture of experts",
            "only dense models in the style of Llama are simulated: attention with KV heads and one gated "
            "feed-forward layer",
            "tune/sim/data/step_time_coefficients.json",
        )


def _timed_parallelism(spec: TrialSpec) -> Iterator[Finding]:
    for role, engine in (("prefill", spec.prefill), ("decode", spec.decode)):
        if engine.context_parallel > 1:
            yield Finding(
                "error",
                f"{role}.{engine.KEYS['context_parallel']}",
                str(engine.context_parallel),
                f"1 where step times are simulated, or {_UNTIMED}",
                "no step time of a worker with context parallelism is known",
                "tune/sim/data/step_time_coefficients.json",
            )


def _timed_keys(spec: TrialSpec) -> Iterator[Finding]:
    for role, engine in (("prefill", spec.prefill), ("decode", spec.decode)):
        for path, effect in engine.untimed.items():
            yield Finding(
                "error",
                f"{role}.{path}",
                str(engine.passed_through[path]),
                f"no such key where step times are simulated, or {_UNTIMED}",
                f"{effect}, which no known step time is for",
                "tune/sim/data/step_time_coefficients.json",
            )
