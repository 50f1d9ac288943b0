"""Build probes and outcomes of the shipped trial; the verdicts on outcomes are those of the judge."""

from functools import cache
from typing import Any

from support.probes import BOTTLENECK, RISING_SHARES, breakdown, full_probe, percentiles, spread
from support.request_logs import spec
from tune.analysis.judge import TrialFacts, judge, judge_unmeasured
from tune.records.outcome import Attempt, CapacityQps, Constraints, Outcome, Probe, Recommendation
from tune.spec.trial import TrialSpec

ATTEMPT = Attempt(
    started_at="2026-01-02T03:04:05+00:00",
    ended_at="2026-01-02T03:34:05+00:00",
    gpu_hours=36.0,
    class_="measured",
)
PREFILL_LIMITS = BOTTLENECK.model_copy(
    update={
        "evidence": "p99 TTFT uses 90 % of its limit",
        "recommendations": (Recommendation(text="a lower rate", overrides=("load.target_qps=15",)),),
    }
)


def probe(qps=15.75, tps=9000.0, *, feasible=True, valid=True, ttft=-0.1, tpot=-0.3, reason=None) -> Probe:
    """Build a probe on 72 GPUs; `ttft` and `tpot` are its constraints, negative where the SLO held."""
    return full_probe(
        target_qps=qps,
        valid=valid,
        feasible=feasible and valid,
        output_tps_per_gpu=tps / 72,
        output_tps=tps,
        loadgen_tps=tps - 1,
        completed_qps=qps - 0.1,
        ttft_s=percentiles(0.5, RISING_SHARES),
        tpot_s=percentiles(0.01, RISING_SHARES),
        latency_s=percentiles(5.0, RISING_SHARES),
        constraints=Constraints(ttft_p99=ttft, tpot_p99=tpot),
        breakdown=breakdown(),
        loadgen_result="VALID" if feasible else "INVALID",
        reason=reason,
        spread=spread(5, 3.5, 0.5, tpot_p99_s=None, max_above_mean_s=0.75) if feasible else None,
        bottleneck=PREFILL_LIMITS,
    )


def facts(number=0, params=None, overrides=(), attempts=(ATTEMPT,)) -> TrialFacts:
    """Build what the judge is given besides the probes."""
    return TrialFacts(number, "tpe", attempts, {"params": params or {}, "overrides": list(overrides)})


def measured(number=0, *, params=None, overrides=(), **figures) -> Outcome:
    """Build the outcome of a trial with one probe; `figures` are those of `probe`."""
    if params is None:
        return _measured(number, tuple(overrides), tuple(figures.items()))
    return judge(spec(), [probe(**figures)], facts(number, params, overrides))


@cache
def _measured(number, overrides, figures) -> Outcome:
    """Build an outcome once: outcomes are frozen."""
    return judge(spec(), [probe(**dict(figures))], facts(number, None, overrides))


def infeasible(number=0) -> Outcome:
    """Build the outcome of a configuration that the engine refuses."""
    reason = "decode.max_num_tokens below max_batch_size"
    return judge_unmeasured("infeasible", spec(), reason, facts(number))


def failed(number=0) -> Outcome:
    """Build the outcome of a trial whose infrastructure failed."""
    return judge_unmeasured("failed", spec(), "node gb07 went down", facts(number))


def made_up(trial: TrialSpec, number: int = 0, **fields: Any) -> Outcome:
    """Build a measured, feasible outcome of `trial` without probes; `fields` replace its own."""
    start = judge_unmeasured("infeasible", trial, "made up", TrialFacts(number, "search"))
    return start.model_copy(update={"status": "measured", "valid": True, "feasible": True, **fields})


def held_at(trial: TrialSpec, capacity_qps: float | None, number: int = 0, **fields: Any) -> Outcome:
    """Build a made-up outcome whose capacity search verified `capacity_qps`, the estimate as well."""
    found = CapacityQps(low=capacity_qps, high=None, estimate=capacity_qps, stopped_early=False)
    return made_up(trial, number, **{"capacity_qps": found} | fields)
