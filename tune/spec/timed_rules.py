"""Check that the simulator knows the step times of a trial's model and parallelism."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from tune.spec.cluster import Calibration
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.model import TIMED_WEIGHT_DTYPE
from tune.spec.split import Role
from tune.spec.step_table import PHASES
from tune.spec.trial import TrialSpec

_UNTIMED = (
    "kernels that were measured (cluster.calibration.step_source=aiconfigurator), tables of its steps "
    "(cluster.calibration.prefill_steps and decode_steps), or real engines (cluster=slurm, cluster=local), "
    "without search=surrogate"
)
"""How to run what the simulator cannot time."""

_SHAPE_TOLERANCE_FRAC = 0.1
"""Share by which stated linear parameters may differ from those of the shapes. Chosen here: biases, norms and
rounding are far less, and any other kind of layer is more."""


def check_timed(spec: TrialSpec, calibration: Calibration | None = None) -> tuple[Finding, ...]:
    """Return an error for a model, parallelism or engine key whose step times the simulator does not know.

    What a table of `calibration` times needs no roofline.
    """
    pools = tuple((pool.role, pool.engine) for pool in spec.pools)
    untabled = tuple(pool for pool in pools if not _has_tables(pool[0], calibration))
    tabled = tuple(pool for pool in pools if pool not in untabled)
    if not untabled:
        return (*_mixed_stages(spec), *_unsimulated_keys(spec, tabled))
    return (
        *_mixed_stages(spec),
        *_unsimulated_keys(spec, tabled),
        *_timed_weights(spec),
        *_timed_layers(spec),
        *_timed_parallelism(untabled),
        *_timed_keys(untabled),
    )


def _has_tables(role: Role, calibration: Calibration | None) -> bool:
    """Return whether tables time all steps of a pool; those of aggregated workers are of both phases."""
    phases = PHASES if role == "aggregated" else (role,)
    return calibration is not None and all(map(calibration.has_table, phases))


def _mixed_stages(spec: TrialSpec) -> Iterator[Finding]:
    """Yield that no time is known of a step which several pipeline stages share for prompts and answers."""
    for role, engine, _ in spec.pools:
        if role == "aggregated" and engine.pipeline_stages > 1:
            yield Finding(
                "error",
                f"{role}.{engine.KEYS['pipeline_stages']}",
                str(engine.pipeline_stages),
                "1 where step times are simulated, or real engines (cluster=slurm, cluster=local)",
                "chunks and answers of a step pass a pipeline in ways that are not simulated",
                "tune/sim/aggregated_loop.py",
            )


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
    for field, what in model.untimed.items():
        yield Finding(
            "error",
            f"model.{field}",
            f"{getattr(model, field)}, of {model.name}",
            f"null, a dense model, where step times are simulated, or {_UNTIMED}",
            f"no step time of a model with {what} is known",
            "tune/sim/data/step_time_coefficients.json",
        )
    if not model.untimed and not math.isclose(
        model.linear_parameters, model.dense_parameters, rel_tol=_SHAPE_TOLERANCE_FRAC
    ):
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


def _timed_parallelism(pools: Iterable[tuple[Role, Engine]]) -> Iterator[Finding]:
    for role, engine in pools:
        if engine.context_parallel > 1:
            yield Finding(
                "error",
                f"{role}.{engine.KEYS['context_parallel']}",
                str(engine.context_parallel),
                f"1 where step times are simulated, or {_UNTIMED}",
                "no step time of a worker with context parallelism is known",
                "tune/sim/data/step_time_coefficients.json",
            )


def _unsimulated_keys(spec: TrialSpec, pools: Iterable[tuple[Role, Engine]]) -> Iterator[Finding]:
    """Yield keys that change what steps do in ways that are not simulated, whatever times a table gives them.

    Ranks with attention data parallelism and drafts are simulated in prefill and decode workers.
    """
    for role, engine in pools:
        keys = engine.untimed if role == "aggregated" else engine.unsimulated
        for path, effect in keys.items():
            yield Finding(
                "error",
                f"{role}.{path}",
                str(engine.passed_through[path]),
                "no such key where steps are simulated, or real engines (cluster=slurm, cluster=local)",
                f"{effect}, which is not simulated here",
                "tune/sim",
            )


def _timed_keys(pools: Iterable[tuple[Role, Engine]]) -> Iterator[Finding]:
    for role, engine in pools:
        for path, effect in engine.untimed.items():
            yield Finding(
                "error",
                f"{role}.{path}",
                str(engine.passed_through[path]),
                f"no such key where step times are simulated, or {_UNTIMED}",
                f"{effect}, which no known step time is for",
                "tune/sim/data/step_time_coefficients.json",
            )
