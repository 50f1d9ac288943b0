"""Probes and outcomes made for the tests of this room."""

from support.request_logs import spec
from tune.analysis.judge import judge, judge_failed, judge_infeasible
from tune.records.outcome import (
    Attempt,
    Bottleneck,
    Breakdown,
    Constraints,
    LatencySpread,
    Outcome,
    Percentiles,
    Probe,
    Recommendation,
    ShuffleSpread,
)

ATTEMPT = Attempt(
    started_at="2026-01-02T03:04:05+00:00",
    ended_at="2026-01-02T03:34:05+00:00",
    gpu_hours=36.0,
    class_="measured",
)

SPREAD = ShuffleSpread(
    shuffles=5,
    slo_held=3,
    ttft_p99_s=LatencySpread(mean=3.5, sd=0.5, min=3.0, max=4.25),
    tpot_p99_s=None,
)
BINDING = Bottleneck(
    kind="prefill",
    evidence="p99 TTFT uses 90 % of its limit",
    recommendations=(Recommendation(text="a lower rate", overrides=("load.target_qps=15",)),),
)


def percentiles(scale: float) -> Percentiles:
    names = ("mean", "p50", "p90", "p95", "p97", "p99", "p99_9", "max")
    return Percentiles(**{name: scale * (1 + index) for index, name in enumerate(names)})


def probe(qps=15.75, tps=9000.0, *, feasible=True, valid=True, ttft=-0.1, tpot=-0.3, reason=None) -> Probe:
    return Probe(
        target_qps=qps,
        queries=16_626,
        valid=valid,
        feasible=feasible and valid,
        output_tps_per_gpu=tps / 72,
        output_tps=tps,
        loadgen_tps=tps - 1,
        completed_qps=qps - 0.1,
        ttft_s=percentiles(0.5),
        tpot_s=percentiles(0.01),
        latency_s=percentiles(5.0),
        constraints=Constraints(ttft_p99=ttft, tpot_p99=tpot),
        breakdown=Breakdown(
            queue_s=0.4,
            prefill_s=0.5,
            transfer_s=0.1,
            slot_s=None,
            first_step_s=0.05,
            prefill_utilisation=0.85,
            decode_batch=119.0,
            kv_used_frac=0.6,
            tail_queue_s=2.0,
        ),
        loadgen_result="VALID" if feasible else "INVALID",
        reason=reason,
        raw="raw/1/probe-1",
        spread=SPREAD,
        bottleneck=BINDING,
    )


def facts(number=0, params=None, overrides=()):
    provenance = {"params": params or {}, "overrides": list(overrides)}
    return {"number": number, "source": "tpe", "attempts": (ATTEMPT,), "provenance": provenance}


def measured(number=0, *, params=None, overrides=(), **figures) -> Outcome:
    return judge(spec(), [probe(**figures)], **facts(number, params, overrides))


def infeasible(number=0) -> Outcome:
    return judge_infeasible(spec(), reason="decode.max_num_tokens below max_batch_size", **facts(number))


def failed(number=0) -> Outcome:
    return judge_failed(spec(), reason="node gb07 went down", **facts(number))
