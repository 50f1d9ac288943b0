"""Check a trial against all rules: those of every deployment and those of its engine."""

from __future__ import annotations

from collections.abc import Iterator

from tune.engines.registry import engine_of
from tune.spec.cluster import Calibration
from tune.spec.draft_acceptance import PUBLISHED_ACCEPTANCE
from tune.spec.engine import Engine
from tune.spec.findings import Finding
from tune.spec.rules import check_deployment, check_load
from tune.spec.step_table import PHASES, draft_tokens
from tune.spec.timed_rules import check_timed
from tune.spec.trial import TrialSpec
from tune.workload.checks import check_workload


def check(spec: TrialSpec) -> tuple[Finding, ...]:
    """Return every broken rule of `spec` (errors) and every choice that costs something (warnings).

    Raises ConfigurationError where no adapter has the name `stack.engine`.
    """
    return (
        *check_deployment(spec),
        *engine_of(spec).check(spec),
        *check_load(spec),
        *check_workload(spec),
    )


def check_simulated(spec: TrialSpec, calibration: Calibration | None = None) -> tuple[Finding, ...]:
    """Return what the simulator cannot time in `spec`, and settings that it ignores."""
    passed_over = tuple(
        Finding(
            "warning",
            pool.role,
            ", ".join(keys),
            "keys that the simulated rack knows",
            "the plan passes them to the engine; here they change nothing",
            "tune/sim",
        )
        for pool in spec.pools
        if (keys := [key for key in pool.engine.passed_through if key not in _followed(pool.engine)])
    )
    return (
        *check_timed(spec, calibration),
        *_scaled_tables(calibration),
        *_drafts(spec, calibration),
        *_without_answers(spec),
        *_aggregated_users(spec),
        *passed_over,
        *_ignored_variables(spec),
        *_simplified_frontends(spec),
        *_simplified_router(spec),
    )


def _followed(engine: Engine) -> frozenset[str]:
    """Return the keys without a typed setting that memory, shapes or steps follow, or that are refused."""
    return engine.counted_keys | frozenset(engine.untimed)


def _aggregated_users(spec: TrialSpec) -> Iterator[Finding]:
    """Yield that a closed loop of aggregated workers is not simulated."""
    if spec.load.is_closed_loop and spec.split.aggregated_workers:
        yield Finding(
            "error",
            "load.mode",
            "concurrency with aggregated workers",
            "load.mode=fixed or capacity, or prefill and decode workers (split=14p4d)",
            "the simulated rack has closed loops of two pools alone",
            "tune/sim/closed_loop.py",
        )


def _scaled_tables(calibration: Calibration | None) -> Iterator[Finding]:
    """Yield scales of measured steps: those of the shipped calibration were fitted to the roofline."""
    for role in PHASES:
        scale = getattr(calibration, f"{role}_scale", 1.0)
        if calibration and calibration.has_table(role) and scale != 1:
            yield Finding(
                "warning",
                f"cluster.calibration.{role}_scale",
                f"{scale:g} with a table of {role} steps",
                f"cluster.calibration.{role}_scale=1, or a scale that action=calibrate fitted with the table",
                f"every measured {role} step is multiplied by {scale:g}",
                "tune/sim/step_tables.py",
            )


def _drafts(spec: TrialSpec, calibration: Calibration | None) -> Iterator[Finding]:
    """Yield draft tokens whose acceptance is not known, and a table that was measured with others."""
    drafts, acceptance = spec.decode.draft_tokens, calibration and calibration.draft_acceptance
    known = len(acceptance or PUBLISHED_ACCEPTANCE)
    if drafts > known:
        yield Finding(
            "error",
            "cluster.calibration.draft_acceptance",
            f"{known} shares for {drafts} draft tokens a step",
            "one share for each depth",
            "how many tokens a step makes follows from them",
            "tune/sim/speculation.py",
        )
    rows = calibration and calibration.decode_steps
    if rows and draft_tokens(rows[0]) != drafts:
        yield Finding(
            "warning",
            "cluster.calibration.decode_steps",
            f"steps with {draft_tokens(rows[0])} draft tokens a sequence, where the engine has {drafts}",
            f"a table of steps with {drafts}, or a decode_scale that was fitted with this one",
            "a step that checks more tokens takes longer",
            "tune/sim/speculation.py",
        )


def _without_answers(spec: TrialSpec) -> Iterator[Finding]:
    """Yield that the simulator answers nothing that could be accurate."""
    if spec.load.accuracy:
        yield Finding(
            "error",
            "load.accuracy",
            "true on the simulated rack",
            "cluster=slurm or cluster=local, or load.accuracy=false",
            "the simulator computes when tokens come, not which",
            "tune/sim",
        )


def _ignored_variables(spec: TrialSpec) -> Iterator[Finding]:
    """Yield environment variables: whatever they do to an engine, the simulator does not know it."""
    for path, variables in spec.environments.items():
        if variables:
            yield Finding(
                "warning",
                path,
                ", ".join(sorted(variables)),
                "none on the simulated rack",
                "the plan gives them to the processes; here they change nothing",
                "tune/sim",
            )


def _simplified_frontends(spec: TrialSpec) -> Iterator[Finding]:
    """Yield what the simulator leaves out of the work of several frontends."""
    split, stack = spec.split, spec.stack
    if split.frontend_choice != "round_robin" and split.frontends > 1:
        yield Finding(
            "warning",
            "split.frontend_choice",
            split.frontend_choice,
            "round_robin on the simulated rack",
            "the simulated load client uses the frontends in turn",
            "tune/sim/frontend.py",
        )
    if stack.router_mode == "least-loaded" and split.frontends > 1:
        yield Finding(
            "warning",
            "split.frontends",
            f"{split.frontends} with stack.router_mode=least-loaded",
            "1 on the simulated rack",
            "the simulated routers know the load of all workers; real ones know their own requests alone",
            "tune/sim/routing.py; Dynamo, lib/runtime/src/pipeline/network/egress/push_router.rs",
        )


def _simplified_router(spec: TrialSpec) -> Iterator[Finding]:
    """Yield that the simulated kv router knows only how busy workers are."""
    if spec.stack.router_mode == "kv":
        yield Finding(
            "warning",
            "stack.router_mode",
            "kv",
            "round-robin, random or least-loaded on the simulated rack",
            "it is simulated as least-loaded: prompts share no blocks there, and load is counted in requests",
            "tune/sim/routing.py",
        )


def check_local(spec: TrialSpec) -> tuple[Finding, ...]:
    """Return settings of `spec` that cluster=local has no room for."""
    if not engine_of(spec).computes_tokens or spec.hardware.nodes == 1:
        return ()
    return (
        Finding(
            "error",
            "stack",
            f"{spec.stack.name} on {spec.hardware.nodes} nodes with cluster=local",
            "stack=dynamo_v1_mocker, or hardware.nodes=1",
            "every node index is this machine: workers of several nodes would take the same GPUs",
            "tune/backends/local.py",
        ),
    )
