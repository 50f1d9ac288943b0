"""Judge a trial: from what its probes measured, or from why none could, to its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tune.analysis.recommendations import lower_load
from tune.records.accuracy import Accuracy
from tune.records.capacity_search import CapacityRecord, EarlyStopThreshold
from tune.records.outcome import Attempt, CapacityQps, Constraints, Outcome, Probe
from tune.spec.load import Load
from tune.spec.metrics import LATENCIES, RATES
from tune.spec.trial import TrialSpec


@dataclass(frozen=True)
class TrialFacts:
    """Hold what an outcome states besides measurements.

    `number` is that of the trial in its study, `source` which proposer suggested it, `attempts` every try at
    it, and `provenance` what ran it and from which overrides and parameters.
    """

    number: int
    source: str
    attempts: Sequence[Attempt] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def judge(
    spec: TrialSpec,
    probes: Sequence[Probe],
    facts: TrialFacts,
    *,
    search: CapacityRecord | None = None,
    early_stop: EarlyStopThreshold | None = None,
    accuracy: Accuracy | None = None,
) -> Outcome:
    """Return the outcome of a trial that `probes` measured on one deployment.

    Its figures are those of the feasible run of full length with the most output tokens/s. Where there is
    none, they are those of the probe at the lowest rate, and the trial is not feasible, whatever its short
    runs show. At a fixed rate a probe whose other shuffles are known is feasible where the SLO holds in all
    of them: a trial that owes its verdict to a lucky shuffle is none to deploy. A capacity search looks for
    the rate that half of all shuffles hold, so there every run is judged by its own shuffle.

    Parameters
    ----------
    spec
        The configuration.
    probes
        Every measured probe, in order; at least one.
    facts
        What the outcome states besides.
    search
        Result of the capacity search, None where there was none.
    early_stop
        The rate that stopped the deployment early; None where it was not stopped.
    accuracy
        What the accuracy run found, None without one. Tokens of wrong answers count for nothing: a trial that
        misses a target is not valid.

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
    judged = [_over_shuffles(spec.load, probe) if spec.load.mode != "capacity" else probe for probe in probes]
    best, missed = _deciding_probe(judged), accuracy.missed if accuracy else ()
    figures = {name: getattr(best, name) for name in _OF_BEST}
    return Outcome(
        status="measured",
        feasible=best.feasible and best.full and not missed,
        accuracy=accuracy,
        **(figures | _overruling(search, early_stop, missed)),
        capacity_qps=_capacity(judged, search, early_stop, spec.load.rate_range_qps),
        forecast=search.forecast if search else (),
        probes=tuple(probes),
        **_fields(spec, facts),
    )


def _deciding_probe(judged: Sequence[Probe]) -> Probe:
    """Return the probe whose figures the outcome has."""
    feasible = [probe for probe in judged if probe.feasible and probe.full]
    if feasible:
        return max(feasible, key=lambda probe: probe.output_tps or 0.0)
    return min(judged, key=lambda probe: (not probe.full, probe.target_qps or 0.0))


def _overruling(
    search: CapacityRecord | None, early_stop: EarlyStopThreshold | None, missed: Sequence[str]
) -> dict[str, Any]:
    """Return the fields that an early stop or a missed accuracy decides, whatever the probe measured."""
    if missed:
        return {"valid": False, "reason": f"accuracy missed: {'; '.join(missed)}"}
    return {"reason": _stopped_early(search, early_stop)} if early_stop else {}


def _over_shuffles(load: Load, probe: Probe) -> Probe:
    """Return a probe as all its shuffles judge it: not feasible where its SLO breaks in one of them."""
    spread = probe.spread
    if not probe.feasible or spread is None or spread.slo_met == spread.shuffles:
        return probe
    reason = f"the SLO holds in {spread.slo_met} of {spread.shuffles} shuffles; expected all of them"
    bottleneck = probe.bottleneck
    if bottleneck:
        recommendations = (*bottleneck.recommendations, lower_load(load, probe.target_qps))
        bottleneck = bottleneck.model_copy(update={"recommendations": recommendations})
    return probe.model_copy(update={"feasible": False, "reason": reason, "bottleneck": bottleneck})


def judge_unmeasured(
    status: Literal["infeasible", "failed"], spec: TrialSpec, reason: str, facts: TrialFacts
) -> Outcome:
    """Return the outcome of a trial that measured nothing.

    Parameters
    ----------
    status
        "infeasible" for a configuration that cannot run: it breaks a rule, does not fit in memory, or an
        engine rejects it. "failed" for a trial that the infrastructure broke; it can be run again.
    spec
        The configuration.
    reason
        What is wrong with it, or what broke, in words.
    facts
        What the outcome states besides.

    Returns
    -------
    Outcome
        Without figures or probes.
    """
    return Outcome(
        status=status,
        reason=reason,
        valid=False,
        feasible=False,
        target_qps=spec.load.target_qps,
        concurrency=spec.load.concurrency,
        constraints=Constraints(ttft_p99=None, tpot_p99=None),
        capacity_qps=CapacityQps(low=None, high=None, stopped_early=False),
        probes=(),
        **_NO_FIGURES,
        **_fields(spec, facts),
    )


_FIGURES = (
    *(rate.name for rate in RATES),
    *(latency.field for latency in LATENCIES),
    "breakdown",
    "spread",
    "bottleneck",
)
_OF_BEST = ("target_qps", "concurrency", "valid", "reason", "constraints", "checks", *_FIGURES)
_NO_FIGURES: dict[str, Any] = dict.fromkeys(_FIGURES)


def _stopped_early(search: CapacityRecord | None, early_stop: EarlyStopThreshold) -> str:
    """Return why the deployment was stopped early: the rates that were expected and had to be beaten."""
    capacity_qps = search.capacity_qps if search else 0.0
    threshold = "expected of others" if early_stop.expected else "to beat"
    return (
        f"stopped early: {capacity_qps:.4g} queries/s expected at most, "
        f"{early_stop.early_stop_qps:.4g} {threshold}"
    )


def _capacity(
    probes: Sequence[Probe],
    search: CapacityRecord | None,
    early_stop: EarlyStopThreshold | None,
    rate_range_qps: tuple[float, float] | None,
) -> CapacityQps:
    """Return the highest feasible and the lowest infeasible rate above it; invalid probes bound nothing."""
    full = [probe for probe in probes if probe.full]
    low = max((probe.target_qps for probe in full if probe.feasible and probe.target_qps), default=None)
    missed = (probe.target_qps for probe in full if probe.valid and not probe.feasible and probe.target_qps)
    high = min((qps for qps in missed if low is None or qps > low), default=None)
    return CapacityQps(
        low=low,
        high=high,
        stopped_early=early_stop is not None,
        estimate=search.capacity_qps if search else None,
        prefill=search.prefill_capacity_qps if search else None,
        decode=search.decode_capacity_qps if search else None,
        early_stop=early_stop.early_stop_qps if early_stop else None,
        range=rate_range_qps if search else None,
    )


def _fields(spec: TrialSpec, facts: TrialFacts) -> dict[str, Any]:
    """Return the fields of an outcome that do not depend on measurements."""
    return {
        "trial_id": spec.trial_id,
        "number": facts.number,
        "source": facts.source,
        "gpus": spec.hardware.gpus,
        "attempts": tuple(facts.attempts),
        "gpu_hours": sum(attempt.gpu_hours for attempt in facts.attempts),
        "wall_s": sum(_lasted_s(attempt) for attempt in facts.attempts),
        "provenance": dict(facts.provenance),
    }


def _lasted_s(attempt: Attempt) -> float:
    """Return the wall time of an attempt in seconds."""
    began, ended = (datetime.fromisoformat(stamp) for stamp in (attempt.started_at, attempt.ended_at))
    return (ended - began).total_seconds()
