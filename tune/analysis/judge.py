"""Judge a trial: from what its probes measured, or from why none could, to its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from tune.records.capacity_search import CapacityRecord, EarlyStopThreshold
from tune.records.outcome import Attempt, CapacityQps, Constraints, Outcome, Probe
from tune.spec.metrics import LATENCIES, RATES
from tune.spec.trial import TrialSpec


def judge(
    spec: TrialSpec,
    probes: Sequence[Probe],
    *,
    number: int,
    source: str,
    attempts: Sequence[Attempt],
    provenance: Mapping[str, Any],
    search: CapacityRecord | None = None,
    early_stop: EarlyStopThreshold | None = None,
) -> Outcome:
    """Return the outcome of a trial that `probes` measured on one deployment.

    Its figures are those of the feasible run of full length with the most output tokens/s. Where there is
    none, they are those of the probe at the lowest rate, and the trial is not feasible, whatever its short
    runs show.

    Parameters
    ----------
    spec
        The configuration.
    probes
        Every measured probe, in order; at least one.
    number, source
        Number of the trial in its study, and which proposer suggested it.
    attempts
        Every try at the trial.
    provenance
        What ran it and from which overrides and parameters.
    search
        Result of the capacity search, None where there was none.
    early_stop
        The rate that stopped the deployment early, None where it was not; the outcome is censored then.

    Returns
    -------
    Outcome
        Status "measured", with figures, verdict and all probes.

    Raises
    ------
    ValueError
        Without probes: such a trial failed.
    """
    if not probes:
        raise ValueError(f"trial {spec.trial_id} has no probe; a measured trial has at least one")
    feasible = [probe for probe in probes if probe.feasible and probe.full]
    if feasible:
        best = max(feasible, key=lambda probe: probe.output_tps or 0.0)
    else:
        best = min(probes, key=lambda probe: (not probe.full, probe.target_qps))
    figures = {name: getattr(best, name) for name in _OF_BEST}
    if early_stop:
        capacity_qps = search.capacity_qps if search else 0.0
        threshold = "expected of others" if early_stop.expected else "to beat"
        figures["reason"] = (
            f"stopped early: {capacity_qps:.4g} queries/s expected at most, "
            f"{early_stop.early_stop_qps:.4g} {threshold}"
        )
    return Outcome(
        status="measured",
        feasible=bool(feasible),
        **figures,
        capacity_qps=_capacity(probes, search, early_stop, spec.load.rate_range_qps),
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
    """Return the outcome of a configuration that cannot run.

    It breaks a rule, does not fit in memory, or an engine rejects its settings.

    Parameters
    ----------
    spec
        The configuration.
    reason
        What is wrong with it, in words.
    number, source
        Number of the trial in its study, and which proposer suggested it.
    attempts
        Every try at the trial.
    provenance
        What ran it and from which overrides and parameters.

    Returns
    -------
    Outcome
        Status "infeasible", without figures or probes.
    """
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
    """Return the outcome of a trial that the infrastructure broke: a node, the network, a preemption.

    Such a trial can be run again.

    Parameters
    ----------
    spec
        The configuration.
    reason
        What broke, in words.
    number, source
        Number of the trial in its study, and which proposer suggested it.
    attempts
        Every try at the trial.
    provenance
        What ran it and from which overrides and parameters.

    Returns
    -------
    Outcome
        Status "failed", without figures or probes.
    """
    return _unmeasured("failed", reason, spec, _facts(spec, number, source, attempts, provenance))


_FIGURES = (
    *(rate.name for rate in RATES),
    *(latency.field for latency in LATENCIES),
    "breakdown",
    "spread",
    "bottleneck",
)
_OF_BEST = ("target_qps", "valid", "reason", "constraints", *_FIGURES)
_NO_FIGURES: dict[str, Any] = dict.fromkeys(_FIGURES)


def _capacity(
    probes: Sequence[Probe],
    search: CapacityRecord | None,
    early_stop: EarlyStopThreshold | None,
    rate_range_qps: tuple[float, float] | None,
) -> CapacityQps:
    """Return the highest feasible and the lowest infeasible rate above it; invalid probes bound nothing."""
    full = [probe for probe in probes if probe.full]
    low = max((probe.target_qps for probe in full if probe.feasible), default=None)
    missed = (probe.target_qps for probe in full if probe.valid and not probe.feasible)
    high = min((qps for qps in missed if low is None or qps > low), default=None)
    return CapacityQps(
        low=low,
        high=high,
        censored=early_stop is not None,
        estimate=search.capacity_qps if search else None,
        prefill=search.prefill_capacity_qps if search else None,
        decode=search.decode_capacity_qps if search else None,
        early_stop=early_stop.early_stop_qps if early_stop else None,
        range=rate_range_qps if search else None,
    )


def _unmeasured(
    status: Literal["infeasible", "failed"], reason: str, spec: TrialSpec, facts: dict[str, Any]
) -> Outcome:
    """Return an outcome without figures."""
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
    """Return the fields of an outcome that do not depend on measurements."""
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
    """Return the wall time of an attempt in seconds."""
    began, ended = (datetime.fromisoformat(stamp) for stamp in (attempt.started_at, attempt.ended_at))
    return (ended - began).total_seconds()
