"""From what the probes of a trial measured, or why none could, to its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from tune.records.capacity_search import CapacityRecord, EarlyStopThreshold
from tune.records.outcome import Attempt, CapacityQps, Constraints, Outcome, Probe
from tune.spec.trial import TrialSpec


def judge(
    spec: TrialSpec,
    probes: Sequence[Probe],
    *,
    number: int,
    source: str,
    attempts: Sequence[Attempt],
    provenance: Mapping[str, Any],
    found: CapacityRecord | None = None,
    unbeaten: EarlyStopThreshold | None = None,
) -> Outcome:
    """The outcome of trial `number` that was measured by `probes` on one deployment.

    Its figures are those of the feasible run of full length with the most output tokens/s, or of the probe at
    the lowest rate where there is none: that trial is not feasible, whatever its short probes say.
    `found`: what the search for the highest rate came to, None where there was none. `unbeaten`: what
    a deployment was given up for, as clearly below it; the outcome is censored then.
    Raises ValueError without probes: such a trial failed.
    """
    if not probes:
        raise ValueError(f"trial {spec.trial_id} has no probe; a measured trial has at least one")
    feasible = [probe for probe in probes if probe.feasible and probe.full]
    if feasible:
        best = max(feasible, key=lambda probe: probe.output_tps or 0.0)
    else:
        best = min(probes, key=lambda probe: (not probe.full, probe.target_qps))
    figures = {name: getattr(best, name) for name in _OF_BEST}
    if unbeaten:
        capacity_qps = found.capacity_qps if found else 0.0
        wanted = "expected of others" if unbeaten.expected else "to beat"
        figures["reason"] = (
            f"given up: {capacity_qps:.4g} queries/s expected at most, {unbeaten.early_stop_qps:.4g} {wanted}"
        )
    return Outcome(
        status="measured",
        feasible=bool(feasible),
        **figures,
        capacity_qps=_capacity(probes, found, unbeaten),
        probes=tuple(probes),
        **_facts(spec, number, source, attempts, provenance),
    )


def judge_infeasible(
    spec: TrialSpec,
    *,
    reason: str,
    number: int,
    source: str,
    attempts: Sequence[Attempt],
    provenance: Mapping[str, Any],
) -> Outcome:
    """The outcome of a point that is wrong: a broken rule, no memory, an engine that rejects its settings."""
    return _unmeasured("infeasible", reason, spec, _facts(spec, number, source, attempts, provenance))


def judge_failed(
    spec: TrialSpec,
    *,
    reason: str,
    number: int,
    source: str,
    attempts: Sequence[Attempt],
    provenance: Mapping[str, Any],
) -> Outcome:
    """The outcome of a trial that the world broke: a node, the network, a preemption. It can be run again."""
    return _unmeasured("failed", reason, spec, _facts(spec, number, source, attempts, provenance))


_FIGURES = (
    "output_tps_per_gpu", "output_tps", "loadgen_tps", "completed_qps", "ttft_s", "tpot_s", "latency_s",
    "breakdown", "spread", "bottleneck",
)  # fmt: skip
_OF_BEST = ("target_qps", "valid", "reason", "constraints", *_FIGURES)
_NO_FIGURES: dict[str, Any] = dict.fromkeys(_FIGURES)


def _capacity(
    probes: Sequence[Probe], found: CapacityRecord | None, unbeaten: EarlyStopThreshold | None
) -> CapacityQps:
    """Highest feasible rate, and the lowest infeasible one above it; an untrusted probe bounds nothing."""
    full = [probe for probe in probes if probe.full]
    low = max((probe.target_qps for probe in full if probe.feasible), default=None)
    missed = (probe.target_qps for probe in full if probe.valid and not probe.feasible)
    high = min((qps for qps in missed if low is None or qps > low), default=None)
    return CapacityQps(
        low=low,
        high=high,
        censored=unbeaten is not None,
        estimate=found.capacity_qps if found else None,
        prefill=found.prefill_capacity_qps if found else None,
        decode=found.decode_capacity_qps if found else None,
        early_stop=unbeaten.early_stop_qps if unbeaten else None,
    )


def _unmeasured(
    status: Literal["infeasible", "failed"], reason: str, spec: TrialSpec, facts: dict[str, Any]
) -> Outcome:
    return Outcome(
        status=status,
        reason=reason,
        valid=False,
        feasible=False,
        target_qps=spec.load.target_qps,
        constraints=Constraints(ttft_p99=None, tpot_p99=None),
        capacity_qps=CapacityQps(low=None, high=None, censored=False),
        probes=(),
        **_NO_FIGURES,
        **facts,
    )


def _facts(
    spec: TrialSpec, number: int, source: str, attempts: Sequence[Attempt], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "trial_id": spec.trial_id,
        "number": number,
        "source": source,
        "gpus": spec.hardware.gpus,
        "attempts": tuple(attempts),
        "gpu_hours": sum(attempt.gpu_hours for attempt in attempts),
        "wall_s": sum(_lasted_s(attempt) for attempt in attempts),
        "provenance": dict(provenance),
    }


def _lasted_s(attempt: Attempt) -> float:
    began, ended = (datetime.fromisoformat(stamp) for stamp in (attempt.started_at, attempt.ended_at))
    return (ended - began).total_seconds()
